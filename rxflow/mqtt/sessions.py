"""The sessions that a run keeps at brokers, written down beside its output in `<path>.client`.

Of each it says the client id, the broker, the filters, and when it last had a connection:

    {"sessions": [{"client_id": "rxflow-5f0c…", "broker": "mqtt://localhost:1883", "given": false,
      "subscribed": {"plant/#": 1}, "asked": {}, "last_connected": "2026-11-28T13:00:00+00:00"}]}

A session belongs to the output and the broker; filters are its settings. Which session a source
continues is decided for all sources that begin together: first those that have the most filters in
common, then in the order in which the sessions were made. So a source whose filters changed keeps
its session, and several sources at one broker keep theirs apart.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, cast

from rxflow.errors import ConfigError, SinkError
from rxflow.log import logger
from rxflow.mqtt import address
from rxflow.process.worker import Works

_GIVEN: Final = "given"


def _unsaved() -> None:
    """Of a session that no file keeps."""


@dataclass(slots=True)
class Session:
    """One client id at one broker, and what is known of its session there.

    What a method changes is written down soon, in the background.

    `subscribed` is in the file only while there is a connection, and after one that was ended
    properly: whoever continues a session that was lost from sight trusts no SUBACK of it.

    Attributes:
        client_id: Names the session.
        broker: Its URL, without credentials.
        is_given: True for an id that the user chose; others may use it elsewhere.
        subscribed: The filters whose SUBACK came, with the QoS asked for.
        asked: Those that were asked for, and perhaps have no SUBACK.
        last_connected: When it is last known to have had a connection; None: never, or not known.
        is_old: True if it was taken over from a file of the first form, which told no times.
        is_sure: True while the broker is known to have what is `subscribed`.
    """

    client_id: str
    broker: str
    is_given: bool = False
    subscribed: dict[str, int] = field(default_factory=dict[str, int])
    asked: dict[str, int] = field(default_factory=dict[str, int])
    last_connected: datetime | None = None
    is_old: bool = False
    is_sure: bool = False
    save: Callable[[], None] = field(default=_unsaved, repr=False, compare=False)

    @property
    def place(self) -> str:
        """The broker, however its host was written."""
        return address.parse(self.broker).place

    @property
    def has_been(self) -> bool:
        """True if it is known to have had a connection, and so a session at the broker."""
        return self.is_old or self.last_connected is not None

    @property
    def filters(self) -> list[str]:
        """All that may be subscribed."""
        return list({**self.subscribed, **self.asked})

    def connected(self, at: datetime, asks: Mapping[str, int], *, session_present: bool) -> None:
        """It has a connection, and a SUBSCRIBE with these filters is about to be sent on it."""
        self.last_connected = at
        self.is_sure = True
        if not session_present:
            self.subscribed.clear()
            self.asked.clear()
        self.asked.update(
            {name: qos for name, qos in asks.items() if self.subscribed.get(name) != qos}
        )
        self.save()

    def seen(self, at: datetime, *, is_lost: bool = False) -> None:
        """It has a connection, or had one until now; `is_lost`: and lost it."""
        self.last_connected = at
        self.is_sure = not is_lost
        self.save()

    def stands(self, filters: Mapping[str, int]) -> None:
        """The SUBACK for these has come."""
        before = dict(self.subscribed), len(self.asked)
        for name in filters:
            self.asked.pop(name, None)
        self.subscribed.update(filters)
        if before != (self.subscribed, len(self.asked)):
            self.save()

    def dropped(self, names: list[str]) -> None:
        """The UNSUBACK for these has come."""
        for name in names:
            self.asked.pop(name, None)
            self.subscribed.pop(name, None)
        self.save()


@dataclass(frozen=True, slots=True)
class _Wish:
    """The request of a source for a session, before it begins."""

    broker: address.Address
    filters: Mapping[str, int]
    client_id: str | None


class ClientIds:
    """The sessions of one output, in a small JSON file.

    Args:
        path: The file; made when the first session is.
        worker: Makes the thread that writes it while connections stand; None: who changes it does.
    """

    def __init__(self, path: Path, worker: Callable[[], Works] | None = None) -> None:
        self.path = path
        self._worker = worker
        self._works: Works | None = None
        self._latest = ""  # what the file shall hold
        self._is_writing = False
        self._lock = threading.Lock()  # of the file
        self._sessions: list[Session] | None = None
        self._wishes: dict[object, _Wish] = {}
        self._claimed: dict[object, Session] = {}
        self._told: set[int] = set()

    # -- for sources ----------------------------------------------------------------------------

    def want(
        self,
        owner: object,
        broker: address.Address,
        filters: Mapping[str, int],
        client_id: str | None = None,
    ) -> None:
        """A source will `claim` a session: all that want one first are considered together.

        Args:
            owner: The source, over all its subscriptions.
            broker: Where.
            filters: Its topic filters.
            client_id: The id that the user chose, if he did.
        """
        self._wishes[owner] = _Wish(broker, filters, client_id)

    def claim(self, owner: object) -> Session:
        """The session of a source that wanted one; the same each time, on disk before it is used.

        Raises:
            SinkError: The file can't be read or written, or is not one of ours.
        """
        if owner in self._wishes:
            self._assign()
        return self._claimed[owner]

    def unused(self) -> list[Session]:
        """The sessions that no source has claimed so far; each is returned once."""
        known = self._in_use() | self._told
        found = [s for s in self._all() if s.has_been and id(s) not in known]
        self._told.update(map(id, found))
        return found

    def _in_use(self) -> set[int]:
        return {id(session) for session in self._claimed.values()}

    def _assign(self) -> None:
        wishes, self._wishes = self._wishes, {}
        for owner, wish in wishes.items():
            earlier = self._claimed.pop(owner, None)
            if earlier and earlier.place == wish.broker.place:
                self._claimed[owner] = earlier
        open_ = {owner: wish for owner, wish in wishes.items() if owner not in self._claimed}
        matches = [
            (-len(wish.filters.keys() & set(session.filters)), nth, order, owner, session)
            for nth, (owner, wish) in enumerate(open_.items())
            for order, session in enumerate(self._all())
            if _fits(wish, session)
        ]
        taken = self._in_use()
        for *_, owner, session in sorted(matches, key=lambda match: match[:3]):
            if owner not in self._claimed and id(session) not in taken:
                self._claimed[owner] = session
                taken.add(id(session))
        for owner, wish in open_.items():
            broker = str(wish.broker.anonymous)
            if owner not in self._claimed:
                self._claimed[owner] = self._made(broker, wish.client_id)
            else:
                self._claimed[owner].broker = broker
            session = self._claimed[owner]
            session.asked.update(
                {n: q for n, q in wish.filters.items() if session.subscribed.get(n) != q}
            )
        if open_:
            self._write()

    def _made(self, broker: str, client_id: str | None) -> Session:
        session = Session(
            client_id or f"rxflow-{secrets.token_hex(8)}",
            broker,
            is_given=client_id is not None,
            save=self._save,
        )
        self._all().append(session)
        return session

    # -- for whoever looks from outside -----------------------------------------------------------

    def of(self, broker: address.Address) -> list[Session]:
        """The sessions that were kept for one broker, however its host was written.

        Raises:
            SinkError: The file can't be read, or is not one of ours.
        """
        return [session for session in self._all() if session.place == broker.place]

    def last_connected(self, client_id: str, broker: address.Address) -> datetime | None:
        """When this session is last known to have had a connection; None: never, or not known.

        Raises:
            SinkError: The file can't be read, or is not one of ours.
        """
        times = [s.last_connected for s in self.of(broker) if s.client_id == client_id]
        return times[0] if times else None

    def drop(self, session: Session) -> None:
        """Keep this session no longer; the next run gets a new one.

        Raises:
            SinkError: The file can't be written.
        """
        self._all().remove(session)
        self._write()

    # -- the file ---------------------------------------------------------------------------------

    def _all(self) -> list[Session]:
        if self._sessions is None:
            self._sessions = self._read()
        return self._sessions

    def _read(self) -> list[Session]:
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise SinkError(f"{self.path}: can't read the client ids: {error}") from error
        try:
            found = json.loads(text)
            if isinstance(found, dict) and isinstance(found.get("sessions"), list):
                return [_session(each, self._save) for each in found["sessions"]]
            return [_taken_over(key, value, self._save) for key, value in found.items()]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            text = f"{self.path}: not a file of client ids; move it away"
            raise SinkError(text) from error

    def _save(self) -> None:
        """Write soon, on another thread: the one that messages come on waits for no disk."""
        self._latest = self._text()
        if self._is_writing:
            return
        if self._works is None and self._worker:
            self._works = self._worker()
        self._is_writing = True
        if self._works:
            self._works.submit(self._write_latest)
        else:
            self._write_latest()

    def _write_latest(self) -> None:
        self._is_writing = False
        try:
            self._store()
        except SinkError as error:  # the next process asks for more than it must, no more
            logger.warning("{}", error)

    def close(self, seconds: float) -> None:
        """Wait so long for what is being written."""
        works, self._works = self._works, None
        if works:
            works.end(seconds)

    def _write(self) -> None:
        self._latest = self._text()
        self._store()

    def _text(self) -> str:
        rows = [_row(session) for session in self._all()]
        return json.dumps({"sessions": rows}, indent=2, ensure_ascii=False)

    def _store(self) -> None:
        with self._lock:  # a source that begins late writes while the worker does
            try:
                self._replace(self._latest)
            except OSError as error:
                raise SinkError(f"{self.path}: can't keep the client ids: {error}") from error

    def _replace(self, text: str) -> None:
        fresh = self.path.with_name(f"{self.path.name}.new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a power cut takes the id, and with it the session
        finally:
            os.close(folder)


def _fits(wish: _Wish, session: Session) -> bool:
    """Whether a source may continue a session: at the same broker, an id of the same kind."""
    if session.place != wish.broker.place:
        return False
    return not session.is_given if wish.client_id is None else session.client_id == wish.client_id


def _row(session: Session) -> dict[str, Any]:
    last = session.last_connected
    return {
        "client_id": session.client_id,
        "broker": session.broker,
        _GIVEN: session.is_given,
        "subscribed": session.subscribed if session.is_sure else {},
        "asked": session.asked if session.is_sure else {**session.subscribed, **session.asked},
        "last_connected": last.isoformat(timespec="seconds") if last else None,
    }


def _session(row: Any, save: Callable[[], None]) -> Session:
    """Raises ValueError, TypeError or KeyError if it is none."""
    last = row["last_connected"]
    return Session(
        _id(row["client_id"]),
        _broker(row["broker"]),
        is_given=row[_GIVEN] is True,
        subscribed=_filters(row["subscribed"]),
        asked=_filters(row["asked"]),
        last_connected=None if last is None else _time(last),
        save=save,
    )


def _taken_over(key: str, client_id: Any, save: Callable[[], None]) -> Session:
    """A session of the first form of the file: `"<broker> <filters>": "<client id>"`."""
    broker, _, filters = key.partition(" ")
    asked: dict[str, int] = {}
    with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        asked = _filters(dict(ast.literal_eval(filters)))
    return Session(_id(client_id), _broker(broker), asked=asked, is_old=True, save=save)


def _id(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise ValueError("no client id")
    return value


def _broker(value: Any) -> str:
    try:
        address.parse(value)
    except ConfigError as error:
        raise ValueError("no broker") from error
    return cast("str", value)


def _filters(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError("no filters")
    filters = cast("dict[Any, Any]", value)
    if any(not isinstance(name, str) or qos not in {0, 1, 2} for name, qos in filters.items()):
        raise ValueError("no filters")
    return dict(filters)


def _time(value: Any) -> datetime:
    found = datetime.fromisoformat(value)
    if found.tzinfo is None:
        raise ValueError("no time zone")
    return found
