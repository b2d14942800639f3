"""Renewal in a forked child: its parent's threads, locks and connections aren't its own.

A child has a copy of every object, but no thread save the one that forked, locks as they happened
to be, and the very same sockets. What must not go on in it is registered here, and told.
"""

from __future__ import annotations

import importlib
import os
import socket
import weakref
from contextlib import suppress
from typing import Final, Protocol


class Forked(Protocol):
    """Something that a forked child has a copy of."""

    def forked(self) -> None:
        """This is the copy: be as if new, and touch nothing that is the parent's."""
        ...


_told: Final[weakref.WeakSet[Forked]] = weakref.WeakSet()
_late: Final[set[str]] = set()
_sockets: Final[weakref.WeakSet[socket.socket]] = weakref.WeakSet()


def tell_in_child(one: Forked) -> None:
    """Call its `forked` in each child that this process is forked into, as long as it lives."""
    _told.add(one)


def close_in_child(sock: socket.socket) -> None:
    """Close the child's end of it there, and send nothing.

    The other end would else not see that the parent is gone while a child lives.
    """
    _sockets.add(sock)


def import_before_fork(name: str) -> None:
    """Import this before this process is forked: a thread of ours will do so, perhaps just then.

    The lock of a module that another thread imports is never freed in the child.
    """
    _late.add(name)


def _before() -> None:
    for name in list(_late):
        importlib.import_module(name)


def _in_child() -> None:
    for one in list(_told):
        one.forked()
    for sock in list(_sockets):
        with suppress(OSError):
            # No `close` of a TLS or WebSocket layer, which might say goodbye in the parent's name.
            if (fd := socket.socket.detach(sock)) >= 0:
                os.close(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
