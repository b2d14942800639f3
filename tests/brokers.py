"""A real mosquitto for tests, with the certificates it may need.

`Mosquitto` listens on the loopback interface only, keeps its state in a folder of the test's, and
can be stopped, killed, frozen and started again on the same ports.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

USERS = {"wiredflow": "wiredflow"}
"""Who may connect to the brokers of the tests, unless a test says otherwise."""

_PATIENCE = 60.0
_POLL = 0.01


def mosquitto_path() -> str | None:
    """Where mosquitto is; Debian keeps it outside the PATH of users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Mosquitto:
    """A mosquitto process, as a context manager.

    Args:
        folder: For configuration, log and persistence.
        users: Passwords by username; None lets anyone in.
        certificate: Adds a listener with TLS, and one with TLS and WebSocket.
        client_ca: Asks clients for a certificate of this authority.
        with_websocket: Adds a listener for WebSocket.
        persistence: Whether sessions survive its death.
        options: More lines for its configuration.
    """

    def __init__(  # noqa: PLR0913 (a broker has as many switches as the tests need)
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = USERS,
        certificate: Certificate | None = None,
        client_ca: Path | None = None,
        with_websocket: bool = False,
        persistence: bool = True,
        options: str = "",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.tls_port = free_port() if certificate else None
        self.websocket_port = free_port() if with_websocket else None
        self.secure_websocket_port = free_port() if with_websocket and certificate else None
        self._certificate = certificate
        self._client_ca = client_ca
        self._users = users
        self._persistence = persistence
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    # -- where it is -----------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"mqtts://localhost:{self.tls_port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.websocket_port}/mqtt"

    @property
    def secure_websocket_url(self) -> str:
        return f"wss://localhost:{self.secure_websocket_port}/mqtt"

    @property
    def log(self) -> str:
        """What it has said so far, of all its lives."""
        return (self.folder / "mosquitto.log").read_text(errors="replace")

    # -- its life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, or start it again; return when it accepts connections."""
        path = mosquitto_path()
        assert path is not None, "mosquitto is not installed"
        assert self._process is None, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "mosquitto.conf"
        configuration.write_text("\n".join(self._configuration()) + "\n")
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [path, "-c", str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            for port in self._ports():
                self._wait_for(port)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM: it saves its sessions and ends."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what it did not save is gone."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end: its connections stay, but nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(_PATIENCE)

    def _wait_for(self, port: int) -> None:
        assert self._process is not None
        for _ in range(int(_PATIENCE / _POLL)):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL)
                break
        text = f"mosquitto does not listen on {port}:\n{self.log}"
        raise RuntimeError(text)

    def _ports(self) -> list[int]:
        ports = (self.port, self.tls_port, self.websocket_port, self.secure_websocket_port)
        return [port for port in ports if port]

    def _configuration(self) -> Iterator[str]:
        if os.geteuid() == 0:
            yield "user root"  # else it changes its user, who can't enter the test's folder
        yield "log_type all"
        yield f"persistence {str(self._persistence).lower()}"
        yield f"persistence_location {self.folder}/"
        yield "autosave_interval 1"
        yield "max_queued_messages 0"
        yield "max_inflight_messages 1000"
        if self._users is None:
            yield "allow_anonymous true"
        else:
            yield "allow_anonymous false"
            yield f"password_file {self._password_file}"
        yield self._options
        yield f"listener {self.port} 127.0.0.1"
        if self.tls_port:
            yield f"listener {self.tls_port} 127.0.0.1"
            yield from self._tls()
        # Given an address, mosquitto 2.0.11 opens a WebSocket to the whole network; given an
        # interface, to that one. Without a listener for TCP beside it, it doesn't start at all.
        if self.websocket_port:
            yield f"listener {self.websocket_port} lo"
            yield "protocol websockets"
        if self.secure_websocket_port:
            yield f"listener {self.secure_websocket_port} lo"
            yield "protocol websockets"
            yield from self._tls()

    def _tls(self) -> Iterator[str]:
        assert self._certificate is not None
        yield f"certfile {self._certificate.chain}"
        yield f"keyfile {self._certificate.key}"
        if self._client_ca:
            yield f"cafile {self._client_ca}"
            yield "require_certificate true"

    @cached_property
    def _password_file(self) -> Path:
        path = self.folder / "passwords"
        path.touch(mode=0o600)
        for name, password in (self._users or {}).items():
            command = ["mosquitto_passwd", "-b", str(path), name, password]
            subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE)
        return path


# -- certificates ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, each in a PEM file."""

    chain: Path
    key: Path


class Authority:
    """A certificate authority made on the spot, and what it signs.

    Args:
        folder: For the PEM files.
        name: Of the authority; also of its file.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        authority = (
            _builder(self._name, self._name, self._key.public_key(), days=(-2, 2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))

    @cached_property
    def server(self) -> Certificate:
        """Valid for localhost, 127.0.0.1 and ::1."""
        return self._sign("server", ["localhost"], ["127.0.0.1", "::1"])

    @cached_property
    def expired(self) -> Certificate:
        """Valid for localhost until yesterday."""
        return self._sign("expired", ["localhost"], ["127.0.0.1", "::1"], days=(-2, -1))

    @cached_property
    def wrong_name(self) -> Certificate:
        """Valid for another host."""
        return self._sign("wrong-name", ["elsewhere.invalid"], [])

    @cached_property
    def client(self) -> Certificate:
        """For a client."""
        return self._sign("client", ["client"], [], is_server=False)

    def _sign(
        self,
        name: str,
        hosts: list[str],
        addresses: list[str],
        *,
        days: tuple[int, int] = (-2, 2),
        is_server: bool = True,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        use = ExtendedKeyUsageOID.SERVER_AUTH if is_server else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = (
            _builder(_name(name), self._name, key.public_key(), days=days)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        made.chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, *, days: tuple[int, int]) -> Any:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(**used: bool) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: used.get(name, False) for name in every})
