/* The feeder: a broker for one topic that only sends, or a publisher, faster than what it measures.
 *
 *   feeder qos=1 count=400000 window=5000 size=100 topics=1 properties=0 clients=1 [port=1883]
 *
 * Without `port` it listens on the loopback interface and prints "port N"; each of `clients` gets
 * CONNACK and SUBACK. With it, it connects to a broker there and publishes. Either way it then prints
 * "begin T", sends `count` PUBLISH packets encoded beforehand (to each client its share), keeps at
 * most `window` of them in flight at QoS 1 and 2, and prints "end T acknowledged p50 p99" (T is
 * CLOCK_MONOTONIC; the percentiles in microseconds, with a window of 1). It leaves when the clients
 * have, when its standard input closes, or after two minutes. The version is what CONNECT says.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CLIENTS = 256, READ = 1 << 18, SEND = 1 << 18 };

typedef struct {
    int fd, is_subscribed, is_full;
    long count, acked;           /* messages to send; handshakes that are done */
    size_t position;             /* bytes of PUBLISH packets sent, the ring's start over and over */
    unsigned char *in, *control; /* read and not parsed; PUBREL and answers, whole packets */
    size_t in_length, control_length, control_sent, control_room;
} Client;

static long qos = 1, count = 100000, window = 5000, size = 100, topics = 1, properties = 0, clients = 1,
            port = 0;
static int version = 0; /* 4 or 5, once a CONNECT has come */
static unsigned char *ring;
static size_t length, ring_length; /* of a packet; of all packets */
static float *latency;             /* microseconds, by message */
static double sent_at;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *why) {
    fprintf(stderr, "feeder: %s: %s\n", why, strerror(errno));
    exit(1);
}

static size_t put_text(unsigned char *to, const char *text) {
    size_t n = strlen(text);
    to[0] = n >> 8, to[1] = n;
    memcpy(to + 2, text, n);
    return n + 2;
}

/* One PUBLISH after the other, all of the same length, with the packet ids 1 ... 65,535. */
static void make_ring(void) {
    long packets = topics > 65535 ? topics : 65535;
    unsigned char *body = malloc(size + 512), extra[256];
    size_t extra_length = 0;
    for (long i = 0; version == 5 && i < properties; i++) {
        char name[16], value[16];
        snprintf(name, sizeof name, "name%ld", i % 10);
        snprintf(value, sizeof value, "value%ld", i % 10);
        extra[extra_length++] = 0x26;
        extra_length += put_text(extra + extra_length, name);
        extra_length += put_text(extra + extra_length, value);
        if (extra_length > 127 - 16) break; /* its length stays one byte */
    }
    for (long i = 0; i < packets; i++) {
        char topic[32], payload[128];
        if (topics == 1) strcpy(topic, "bench/kitchen");
        else snprintf(topic, sizeof topic, "bench/%07ld", i % topics);
        size_t n = put_text(body, topic);
        long id = i % 65535 + 1;
        if (qos) body[n++] = id >> 8, body[n++] = id & 255;
        if (version == 5) {
            body[n++] = extra_length;
            memcpy(body + n, extra, extra_length);
            n += extra_length;
        }
        const char *form = size < 70 ? "{\"n\":%ld,\"p\":\""
            : "{\"n\":%ld,\"sensor\":\"kitchen\",\"celsius\":21.5,\"ok\":1,\"pad\":\"";
        long head = snprintf(payload, sizeof payload, form, 1000000 + i);
        memcpy(body + n, payload, head);
        memset(body + n + head, 'x', size - head - 2);
        memcpy(body + n + size - 2, "\"}", 2);
        n += size;
        unsigned char fixed[5] = {0x30 | qos << 1};
        size_t f = 1, rest = n;
        do {
            fixed[f++] = (rest & 127) | (rest > 127 ? 128 : 0);
            rest >>= 7;
        } while (rest);
        if (!ring) {
            length = f + n, ring_length = length * packets;
            if (!(ring = malloc(ring_length))) die("no memory");
        }
        memcpy(ring + i * length, fixed, f);
        memcpy(ring + i * length + f, body, n);
    }
    free(body);
}

static void control(Client *c, const unsigned char *packet, size_t n) {
    if (c->control_sent == c->control_length) c->control_sent = c->control_length = 0;
    if (c->control_length + n > c->control_room) {
        c->control_room = 2 * (c->control_length + n);
        if (!(c->control = realloc(c->control, c->control_room))) die("no memory");
    }
    memcpy(c->control + c->control_length, packet, n);
    c->control_length += n;
}

static void leave(Client *c) {
    close(c->fd);
    c->fd = -1;
}

static void done(Client *c) {
    if (latency && c->acked < count) latency[c->acked] = (now() - sent_at) * 1e6;
    c->acked++;
}

static void packet(Client *c, const unsigned char *p, const unsigned char *body) {
    switch (p[0] >> 4) {
    case 1: /* CONNECT: 00 04 M Q T T level */
        version = body[6];
        control(c, (unsigned char *)(version == 5 ? "\x20\3\0\0\0" : "\x20\2\0\0"), version == 5 ? 5 : 4);
        break;
    case 2: /* CONNACK: we are the publisher */
        c->is_subscribed = 1;
        break;
    case 8: {
        unsigned char suback[6] = {0x90, 3, body[0], body[1], qos, 0};
        if (version == 5) suback[1] = 4, suback[4] = 0, suback[5] = qos;
        control(c, suback, suback[1] + 2);
        c->is_subscribed = 1;
        break;
    }
    case 4: case 7: /* PUBACK, PUBCOMP */
        done(c);
        break;
    case 5: { /* PUBREC */
        unsigned char pubrel[4] = {0x62, 2, body[0], body[1]};
        control(c, pubrel, 4);
        break;
    }
    case 12:
        control(c, (unsigned char *)"\xd0\0", 2);
        break;
    case 14:
        leave(c);
    }
}

static void receive(Client *c) {
    ssize_t n = recv(c->fd, c->in + c->in_length, READ - c->in_length, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { leave(c); return; }
    c->in_length += n;
    size_t at = 0;
    while (c->fd >= 0 && c->in_length - at >= 2) {
        size_t rest = 0, i = at + 1, shift = 0;
        while (i < c->in_length && i < at + 5) {
            rest |= (size_t)(c->in[i] & 127) << shift, shift += 7;
            if (c->in[i++] < 128) break;
        }
        if (c->in[i - 1] > 127 || i + rest > c->in_length) break;
        packet(c, c->in + at, c->in + i);
        at = i + rest;
    }
    memmove(c->in, c->in + at, c->in_length -= at);
}

/* Bytes that may be sent now; in some bulk, for a packet a call would make the feeder slow. */
static size_t allowed(Client *c) {
    long most = c->count;
    if (qos && c->acked + window < most) most = c->acked + window;
    size_t bytes = most * length - c->position;
    long bulk = window / 8;
    if (qos && most < c->count && c->position % length == 0 && bytes < bulk * length) return 0;
    return bytes;
}

static ssize_t out(Client *c, const unsigned char *from, size_t n) {
    ssize_t sent = send(c->fd, from, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) { c->is_full = (size_t)sent < n; return sent; }
    if (errno == EAGAIN || errno == EINTR) c->is_full = 1;
    else leave(c);
    return 0;
}

static void transmit(Client *c, int has_begun) {
    c->is_full = 0;
    while (c->fd >= 0 && !c->is_full) {
        int is_between = !has_begun || c->position % length == 0;
        if (is_between && c->control_sent < c->control_length) {
            c->control_sent += out(c, c->control + c->control_sent, c->control_length - c->control_sent);
            continue;
        }
        size_t n = has_begun ? allowed(c) : 0;
        if (!n) return;
        size_t at = c->position % ring_length;
        if (n > ring_length - at) n = ring_length - at;
        if (n > SEND) n = SEND - SEND % length + (length - at % length) % length;
        if (c->control_sent < c->control_length) n = length - c->position % length;
        if (latency) sent_at = now();
        c->position += out(c, ring + at, n);
    }
}

static int by_size(const void *a, const void *b) {
    float x = *(float *)a, y = *(float *)b;
    return (x > y) - (x < y);
}

static int listener(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (void *)&at, n) || listen(fd, MOST_CLIENTS) || getsockname(fd, (void *)&at, &n))
        die("listen");
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static int publisher(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (void *)&at, sizeof at)) die("connect");
    return fd;
}

static Client adopt(int fd, long share) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    Client c = {.fd = fd, .count = share, .in = malloc(READ)};
    return c;
}

int main(int argc, char **argv) {
    struct { const char *name; long *to; } options[] = {
        {"qos", &qos}, {"count", &count}, {"window", &window}, {"size", &size}, {"topics", &topics},
        {"properties", &properties}, {"clients", &clients}, {"port", &port}};
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        for (size_t k = 0; value && k < sizeof options / sizeof *options; k++)
            if (!strncmp(argv[i], options[k].name, value - argv[i])) *options[k].to = atol(value + 1);
    }
    if (clients < 1 || clients > MOST_CLIENTS || size < 20 || count < clients) die("bad arguments");
    alarm(120);
    if (window == 1 && qos) latency = calloc(count, sizeof *latency);
    static Client all[MOST_CLIENTS];
    long here = 0;
    int door = -1;
    if (port) {
        all[here++] = adopt(publisher(), count);
        all[0].is_full = 1; /* to be told that it can send */
        version = 4;
        control(&all[0], (unsigned char *)"\x10\x12\0\4MQTT\4\2\0\0\0\6feeder", 20);
    } else {
        door = listener();
    }
    int has_begun = 0, has_ended = 0;
    double ended = 0;
    for (;;) {
        struct pollfd polled[MOST_CLIENTS + 2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                                  {.fd = here < clients ? door : -1, .events = POLLIN}};
        long left = 0;
        for (long i = 0; i < here; i++) {
            polled[i + 2].fd = all[i].fd;
            polled[i + 2].events = POLLIN | (all[i].is_full ? POLLOUT : 0);
            left += all[i].fd >= 0;
        }
        if (has_ended && !left) return 0;
        if (poll(polled, here + 2, -1) < 0) die("poll");
        if (polled[0].revents) return 0;
        if (polled[1].revents) {
            all[here] = adopt(accept(door, NULL, NULL), count / clients + (here < count % clients));
            here++;
            continue;
        }
        long subscribed = 0, acked = 0, sent = 0;
        for (long i = 0; i < here; i++) {
            Client *c = &all[i];
            if (c->fd >= 0 && polled[i + 2].revents) receive(c);
            subscribed += c->is_subscribed;
        }
        for (long i = 0; i < here; i++)
            if (!has_begun) transmit(&all[i], 0);
        if (!has_begun && subscribed == clients) {
            make_ring();
            has_begun = 1;
            printf("begin %.6f\n", now());
            fflush(stdout);
        }
        for (long i = 0; i < here; i++) {
            Client *c = &all[i];
            if (has_begun && c->fd >= 0) transmit(c, 1);
            acked += c->acked;
            if (has_begun) sent += c->position / length;
        }
        if (has_begun && !has_ended && (qos ? acked : sent) >= count) {
            has_ended = 1;
            ended = now();
            if (latency) qsort(latency, count, sizeof *latency, by_size);
            printf("end %.6f %ld %.1f %.1f\n", ended, acked, latency ? latency[count / 2] : 0,
                   latency ? latency[count * 99 / 100] : 0);
            fflush(stdout);
        }
    }
}
