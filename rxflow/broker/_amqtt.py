"""The embedded broker's protocol: the home of amqtt, imported when a `Broker` is made.

amqtt finds a plugin by the dotted path of a class that derives from its own, so one module has to
import amqtt first; this is that module. Two things are kept from amqtt: its listener, whose port
is private and whose close waits for ever for clients that never spoke, and its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from rxflow.log import logger
from rxflow.process.forked import close_in_child

_LISTENER: Final = "default"
_PATIENCE: Final = 1.0  # seconds for each step of the stop


class Accounts(Protocol):
    """The usernames that may connect, with their passwords."""

    def admit(self, username: str | None, password: str | None) -> bool:
        """Say whether these credentials are good."""
        ...


class AccountsPlugin(BaseAuthPlugin):
    """The plugin that amqtt asks about each CONNECT."""

    @dataclass
    class Config(BaseAuthPlugin.Config):
        """The configuration through which amqtt hands over the users of a broker."""

        accounts: Any

    async def authenticate(self, *, session: Session) -> bool:
        accounts: Accounts = self.config.accounts
        return accounts.admit(session.username, session.password)


def silence() -> None:
    """Keep amqtt's log to itself, unless the program has set a level for it."""
    for name in ("amqtt", "transitions"):
        log = logging.getLogger(name)
        if log.level == logging.NOTSET:
            log.setLevel(logging.CRITICAL + 1)


async def serve(
    listener: socket.socket, accounts: Accounts, stop: asyncio.Event, ready: Callable[[], object]
) -> None:
    """Be a broker on a listening socket until `stop` is set; then close it and all connections.

    Args:
        listener: Bound and listening; closed on return.
        accounts: Who may connect.
        stop: Set on this loop.
        ready: Called once clients are served.
    """
    asyncio.get_running_loop().set_exception_handler(_note)
    plugin = f"{__name__}.{AccountsPlugin.__qualname__}"
    external = ListenerConfig(type=ListenerType.EXTERNAL, bind="external")
    broker = Broker(
        BrokerConfig(listeners={_LISTENER: external}, plugins={plugin: {"accounts": accounts}}),
        loop=asyncio.get_running_loop(),
    )
    clients: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients[writer] = reader
        # asyncio shows its socket in a wrapper that can't be referred to weakly.
        close_in_child(writer.get_extra_info("socket")._sock)  # noqa: SLF001
        try:
            await broker.external_connected(
                StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER
            )
        except asyncio.CancelledError:
            logger.debug("embedded broker: a client was still connected at the end")
        except Exception as error:  # noqa: BLE001 (amqtt's answer to a malformed packet)
            logger.debug("embedded broker: a client was dropped: {}", type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            del clients[writer]

    await broker.start()
    server = await asyncio.start_server(connected, sock=listener)
    try:
        ready()
        await stop.wait()
    finally:
        server.close()
        await asyncio.wait([asyncio.ensure_future(broker.shutdown())], timeout=_PATIENCE)
        for writer, reader in clients.items():
            reader.set_exception(ConnectionAbortedError())  # else it reads on what is buffered
            writer.transport.abort()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=_PATIENCE)


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    del loop
    logger.debug("embedded broker: {}", context.get("message"))
