"""Ending sessions that a broker keeps for a client that will not come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rxflow._client import Client
from rxflow._compose import Connecting
from rxflow.client_ids import ClientIds
from rxflow.delivery import Ledger
from rxflow.errors import ConnectError, RxflowError
from rxflow.log import tell

CONNECT_TIMEOUT: Final = 10.0


def forget(
    url: str, client_id: str, *, username: str | None = None, password: str | None = None
) -> None:
    """Have a broker drop the session of one client id, and what it has queued for it.

    The broker does so when that client connects with a clean start [MQTT-3.1.2-4] and leaves.

    Args:
        url: As for `from_mqtt`.
        client_id: Whose session.
        username: Wins over that of the URL.
        password: Likewise.

    Raises:
        ConfigError: The URL or the id is wrong.
        ConnectError: The broker refused, or can't be reached within ten seconds.
    """
    asyncio.run(_forget(_connecting(url, username, password, client_id), client_id))


def forget_kept(
    url: str, path: Path, *, username: str | None = None, password: str | None = None
) -> list[str]:
    """The same for every id that a run has kept for this broker; each is then kept no longer.

    Args:
        url: As for `from_mqtt`.
        path: The file of client ids, `<path of the sink>.client`.
        username: Wins over that of the URL.
        password: Likewise.

    Returns:
        The client ids.

    Raises:
        ConfigError, ConnectError: As `forget`.
        SinkError: The file can't be read, or is not one of ours.
    """
    place = _connecting(url, username, password, None).place
    ids = ClientIds(path)
    kept = ids.of(str(replace(place, username=None, password=None)))
    for key, client_id in kept.items():
        forget(url, client_id, username=username, password=password)
        ids.drop(key)
    return list(kept.values())


def _connecting(
    url: str, username: str | None, password: str | None, client_id: str | None
) -> Connecting:
    return Connecting(
        url=url,
        username=username,
        password=password,
        version="auto",
        client_id=client_id,
        keep_alive=30,
        connect_timeout=CONNECT_TIMEOUT,
        drain_timeout=0,
        will=None,
        tls=None,
        ca_file=None,
        cert_file=None,
        key_file=None,
    )


async def _forget(connecting: Connecting, client_id: str) -> None:
    loop = asyncio.get_running_loop()
    visit = _Visit(loop.create_future())
    ledger = Ledger(lambda _: None, lambda: None, lambda _: None)
    client = Client(connecting.settings(client_id), visit, ledger, lambda _: None, loop)
    client.start()
    try:
        await visit.connected_or_not
    finally:
        await client.close(deadline=1.0)


class _Visit:
    """The peer of a client that connects, and leaves."""

    def __init__(self, connected_or_not: asyncio.Future[None]) -> None:
        self.connected_or_not = connected_or_not

    def connected(self, *, session_present: bool) -> None:
        del session_present  # never, after a clean start
        if not self.connected_or_not.done():
            self.connected_or_not.set_result(None)

    def failed(self, error: RxflowError) -> None:
        if not self.connected_or_not.done():
            self.connected_or_not.set_exception(error)

    def disconnected(self, reason: str) -> None:
        self.failed(ConnectError(reason))

    def warn(self, text: str) -> None:
        tell(text, is_program=True)

    def raised(self, error: Exception) -> None:
        """Nothing is received that could raise."""

    def subscribed(self, mid: int, reason_codes: Sequence[int]) -> None:
        """Nothing is subscribed."""

    def published(self, mid: int, error: str | None) -> None:
        """Nothing is published."""

    def settled(self) -> None:
        """Nothing is received."""

    def admit(self, topic: bytes) -> str | None:
        del topic  # nothing is received
