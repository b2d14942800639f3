"""Ending sessions that a broker keeps for a client that will not come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rxflow import arguments
from rxflow.delivery import Ledger
from rxflow.errors import ConnectError, RxflowError
from rxflow.log import tell
from rxflow.message import Message
from rxflow.mqtt.client import Client
from rxflow.mqtt.options import Connecting, check_client_id
from rxflow.mqtt.sessions import ClientIds
from rxflow.mqtt.settings import Settings
from rxflow.mqtt.topics import check_topic

CONNECT_TIMEOUT: Final = 10.0


def forget(
    url: str,
    client_id: str,
    *,
    username: str | None = None,
    password: str | None = None,
    path: Path | None = None,
) -> bool:
    """Have a broker drop the session of one client id, and what it has queued for it.

    The broker does so when that client connects with a clean start [MQTT-3.1.2-4] and leaves.
    Before that it is asked whether there is a session.

    Args:
        url: As for `from_mqtt`.
        client_id: Whose session.
        username: Wins over that of the URL.
        password: Likewise.
        path: A file of client ids, `<path of the sink>.client`, that shall keep it no longer.

    Returns:
        True if there was a session.

    Raises:
        ConfigError: The URL or the id is wrong.
        ConnectError: The broker refused, or can't be reached within ten seconds.
        SinkError: The file can't be read or written, or is not one of ours.
    """
    check_client_id(client_id)
    if path is not None:
        path = arguments.file_path("path", path)
    connecting = _connecting(url, username, password, client_id)
    ids = ClientIds(path) if path else None
    kept = ids.of(connecting.place) if ids else []
    has_been = asyncio.run(_forget(connecting, client_id))
    for session in kept:
        if ids and session.client_id == client_id:
            ids.drop(session)
    return has_been


def forget_kept(
    url: str, path: Path, *, username: str | None = None, password: str | None = None
) -> dict[str, bool]:
    """The same for every id that a run has kept for this broker; each is then kept no longer.

    Args:
        url: As for `from_mqtt`.
        path: The file of client ids, `<path of the sink>.client`.
        username: Wins over that of the URL.
        password: Likewise.

    Returns:
        The client ids, and of each whether the broker had a session.

    Raises:
        ConfigError, ConnectError: As `forget`.
        SinkError: The file can't be read, or is not one of ours.
    """
    path = arguments.file_path("path", path)
    place = _connecting(url, username, password, None).place
    kept = [session.client_id for session in ClientIds(path).of(place)]
    return {
        each: forget(url, each, username=username, password=password, path=path) for each in kept
    }


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


async def _forget(connecting: Connecting, client_id: str) -> bool:
    has_been = await _visit(connecting.settings(client_id, is_durable=True))
    await _visit(connecting.settings(client_id))
    return has_been


async def _visit(settings: Settings) -> bool:
    """Connect and leave; was there a session?"""
    loop = asyncio.get_running_loop()
    visit = _Visit(loop.create_future())
    ledger = Ledger(lambda _: None, lambda: None, lambda _: None)
    client = Client(settings, visit, ledger, lambda _: None, loop)
    client.start()
    try:
        return await visit.had_session
    finally:
        await client.close(deadline=1.0)


class _Visit:
    """The peer of a client that connects, and leaves."""

    def __init__(self, had_session: asyncio.Future[bool]) -> None:
        self.had_session = had_session

    def connected(self, *, session_present: bool) -> None:
        if not self.had_session.done():
            self.had_session.set_result(session_present)

    def failed(self, error: RxflowError) -> None:
        if not self.had_session.done():
            self.had_session.set_exception(error)

    def disconnected(self, reason: str) -> None:
        self.failed(ConnectError(reason))

    def warn(self, text: str) -> None:
        tell(text, is_program=True, depth=1)

    def raised(self, error: Exception) -> None:
        """Nothing is received that could raise."""

    def subscribed(self, mid: int, reason_codes: Sequence[int], reason: str) -> None:
        """Nothing is subscribed."""

    def settled(self) -> None:
        """Nothing is received."""

    def admit(self, topic: bytes) -> str:
        return check_topic(topic)

    def oversized(self, message: Message[bytes], size: int) -> None:
        """Nothing is received."""
