// MQTT.js, alone and with RxJS: `receive`, or `job` into a file stream, without a sync.
import { createWriteStream } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// ESM looks for packages beside this file; they are where `make bench` has put them.
const need = createRequire(join(process.env.BENCH_NODE, "package.json"));
const mqtt = need("mqtt");
const { fromEvent, map, filter } = need("rxjs");

const [mode, port, qos, count, version, path] = process.argv.slice(2);
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
  protocolVersion: Number(version),
  reconnectPeriod: 0,
});
const say = () =>
  process.stdout.write(`done ${(Number(process.hrtime.bigint()) / 1e9).toFixed(6)}\n`);

let seen = 0;
if (mode === "receive") {
  client.on("message", () => {
    if (++seen === Number(count)) say();
  });
} else {
  const rows = createWriteStream(path, { flags: "a" });
  fromEvent(client, "message", (topic, payload) => JSON.parse(payload.toString()))
    .pipe(
      filter((value) => value.celsius > -40),
      map(({ n, sensor, celsius }) => ({ n, sensor, celsius, fahrenheit: celsius * 1.8 + 32 })),
    )
    .subscribe((row) => {
      rows.write(`${JSON.stringify(row)}\n`);
      if (++seen === Number(count)) rows.end(say);
    });
}
client.on("connect", () => client.subscribe("bench/#", { qos: Number(qos) }));
