"""Who is measured: rxflow, and its peers in an environment of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from feeders import HERE, Feed
from measure import Subject

_PEERS: Final = HERE / "peers"
_LONGEST_INSTALL: Final = 300


def rxflow(mode: str, *, extra: int = 0, name: str = "rxflow", rows: bool = False) -> Subject:
    """rxflow, of the interpreter that runs this."""
    command = _script(Path(sys.executable), "rxflow_client.py", mode, extra)
    return Subject(name, command, leaves_rows=rows)


def bare_socket() -> Subject:
    """The reader that does nothing else."""
    command = _script(Path(sys.executable), "bare_socket.py", "receive")
    return Subject("bare socket in Python (the limit)", command)


def mosquitto_sub(name: str = "mosquitto_sub") -> Subject:
    """The C client of mosquitto, its output into a file."""
    program = shutil.which("mosquitto_sub")

    def command(port: int, feed: Feed, _: Path) -> list[str]:
        where = ["-h", "127.0.0.1", "-p", str(port), "-t", "bench/#"]
        version = "mqttv5" if feed.version == 5 else "mqttv311"  # noqa: PLR2004
        return [
            program or "",
            *where,
            "-V",
            version,
            "-q",
            str(feed.qos),
            "-C",
            str(feed.count),
        ]

    without = "" if program else "mosquitto_sub is not installed"
    return Subject(name, command, is_silent=True, without=without)


def _script(python: Path, script: str, mode: str, extra: int = 0):  # noqa: ANN202
    def command(port: int, feed: Feed, path: Path) -> list[str]:
        words = (mode, port, feed.qos, feed.count, feed.version, path, extra)
        return [str(python), str(_PEERS / script), *map(str, words)]

    return command


@dataclass(frozen=True)
class _Environment:
    """An environment of its own, or why there is none."""

    folder: Path
    missing: str


class Peers:
    """The others, installed at the first use.

    Args:
        folder: Where their environments are kept.
        install: False leaves them all out.
    """

    def __init__(self, folder: Path, *, install: bool = True) -> None:
        self._folder = folder
        self._install = install
        self._known: dict[str, _Environment] = {}

    def python(self, package: str, script: str, mode: str, name: str) -> Subject:
        """A peer in Python, from the Python Package Index."""
        # wiredflow 0.1 needs paho below 2, which the others don't take.
        place = self._environment(package, self._pip)
        python = place.folder / "bin" / "python"
        return Subject(name, _script(python, script, mode), without=place.missing)

    def node(self, mode: str, name: str) -> Subject:
        """MQTT.js, with RxJS."""
        place = self._environment("mqtt rxjs", self._npm)
        node = shutil.which("node") or "node"

        def command(port: int, feed: Feed, path: Path) -> list[str]:
            words = (mode, port, feed.qos, feed.count, feed.version, path)
            return [node, str(_PEERS / "mqttjs_client.mjs"), *map(str, words)]

        environment = {"BENCH_NODE": str(place.folder)}
        return Subject(name, command, environment, without=place.missing)

    def _environment(self, packages: str, install) -> _Environment:  # noqa: ANN001
        if packages not in self._known:
            folder = self._folder / packages.replace(" ", "-")
            missing = "" if self._install else "peers were left out"
            if self._install and not (folder / ".installed").exists():
                missing = install(folder, packages.split())
                if not missing:
                    (folder / ".installed").touch()
            self._known[packages] = _Environment(folder, missing)
        return self._known[packages]

    @staticmethod
    def _pip(folder: Path, packages: list[str]) -> str:
        venv.create(folder, with_pip=True, clear=True)
        python = folder / "bin" / "python"
        return _tried([str(python), "-m", "pip", "install", "--quiet", *packages], folder)

    @staticmethod
    def _npm(folder: Path, packages: list[str]) -> str:
        npm = shutil.which("npm")
        if not npm or not shutil.which("node"):
            return "node and npm are not installed"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}\n')
        return _tried([npm, "install", "--silent", *packages], folder)


def _tried(command: list[str], folder: Path) -> str:
    """Why this did not work; empty if it did."""
    print(f"installing: {' '.join(command[-2:])}", file=sys.stderr, flush=True)
    try:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_LONGEST_INSTALL,
            env=os.environ | {"PYTHONPATH": ""},
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        return f"could not be installed: {said[-1] if said else error}"
    return ""
