"""A real mosquitto on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROGRAM: Final = next(
    filter(
        None, map(shutil.which, ("mosquitto", "/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"))
    ),
    None,
)
_PAUSE: Final = 0.01


class Mosquitto:
    """A broker that is ready, as a measurement sees it."""

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self._log = log

    def wait_subscribed(self, until: float) -> None:
        """Return when somebody has subscribed to `bench/#`, or when it is too late."""
        while "bench/#" not in self._log.read_text() and time.monotonic() < until:
            time.sleep(_PAUSE)


@contextlib.contextmanager
def mosquitto(folder: Path, *settings: str) -> Iterator[Mosquitto]:
    """Start one, with further lines of configuration; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", "log_type subscribe", *settings)
    config, log = folder / "mosquitto.conf", folder / "mosquitto.log"
    config.write_text("\n".join(lines))
    with (
        log.open("w") as output,
        subprocess.Popen(
            [PROGRAM or "mosquitto", "-c", config], stdout=output, stderr=output
        ) as it,
    ):
        try:
            _wait_open(port)
            yield Mosquitto(port, log)
        finally:
            it.kill()


def _wait_open(port: int) -> None:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(_PAUSE)
    raise TimeoutError("mosquitto does not listen")
