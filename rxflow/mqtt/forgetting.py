"""Ending sessions that a broker keeps for a client that will not come back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Unpack

from rxflow import arguments
from rxflow.errors import ConnectError, RxflowError
from rxflow.log import tell
from rxflow.mqtt.client import Client
from rxflow.mqtt.connection import Connection
from rxflow.mqtt.options import ConnectionOptions, Options, check_client_id, takes_connection
from rxflow.mqtt.sessions import ClientIds
from rxflow.mqtt.settings import Settings


@takes_connection(connect_timeout=10.0)
def forget(
    url: str,
    client_id: str,
    *,
    path: Path | None = None,
    **connection: Unpack[ConnectionOptions],
) -> bool:
    """Have a broker drop the session of one client id, and what it has queued for it.

    The broker does so when that client connects with a clean start [MQTT-3.1.2-4] and leaves.
    Before that it is asked whether there is a session.

    Args:
        url: As for `from_mqtt`.
        client_id: Whose session.
        path: A file of client ids, `<path of the sink>.client`, that shall keep it no longer.
        **connection: Any of `ConnectionOptions`, by name.

    Returns:
        True if there was a session.

    Raises:
        ConfigError: The URL or the id is wrong.
        ConnectError: The broker refused, or can't be reached within `connect_timeout`.
        SinkError: The file can't be read or written, or is not one of ours.
    """
    check_client_id(client_id)
    if path is not None:
        path = arguments.file_path("path", path)
    options = Options(url, connection, client_id=client_id)
    ids = ClientIds(path) if path else None
    kept = ids.of(options.place) if ids else []
    has_been = asyncio.run(_forget(options))
    for session in kept:
        if ids and session.client_id == client_id:
            ids.drop(session)
    return has_been


@takes_connection(connect_timeout=10.0)
def forget_kept(url: str, path: Path, **connection: Unpack[ConnectionOptions]) -> dict[str, bool]:
    """The same for every id that a run has kept for this broker; each is then kept no longer.

    Args:
        url: As for `from_mqtt`.
        path: The file of client ids, `<path of the sink>.client`.
        **connection: Any of `ConnectionOptions`, by name.

    Returns:
        The client ids, and of each whether the broker had a session.

    Raises:
        ConfigError, ConnectError: As `forget`.
        SinkError: The file can't be read, or is not one of ours.
    """
    path = arguments.file_path("path", path)
    place = Options(url, connection).place
    kept = [session.client_id for session in ClientIds(path).of(place)]
    return {each: forget(url, each, path=path, **connection) for each in kept}


async def _forget(options: Options) -> bool:
    has_been = await _visit(options.settings(is_durable=True))
    await _visit(options.settings())
    return has_been


async def _visit(settings: Settings) -> bool:
    """Connect and leave; was there a session?"""
    loop = asyncio.get_running_loop()
    visit = _Visit(loop.create_future())
    client = Client(settings, visit, loop)
    client.start()
    try:
        return await visit.had_session
    finally:
        await client.close(deadline=1.0)


class _Visit:
    """The peer of a client that connects, and leaves."""

    def __init__(self, had_session: asyncio.Future[bool]) -> None:
        self.had_session = had_session

    def connected(self, connection: Connection) -> None:
        if not self.had_session.done():
            self.had_session.set_result(connection.limits.session_present)

    def failed(self, error: RxflowError) -> None:
        if not self.had_session.done():
            self.had_session.set_exception(error)

    def disconnected(self, reason: str) -> None:
        self.failed(ConnectError(reason))

    def warn(self, text: str) -> None:
        tell(text, is_program=True, depth=1)

    def raised(self, error: Exception) -> None:
        """Nothing is received that could raise."""

    def settled(self) -> None:
        """Nothing is received."""
