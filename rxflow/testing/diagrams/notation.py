"""The notation of marble diagrams: a strict parser, a pure function.

Every character is an instant. The next instant is one frame later, unless a duration is written
between them: then exactly that.

    -           silence
    a           an item: one character, looked up in the values; without values it is itself
    (ab|)       several at one instant, in this order; one frame wide like any other
    |   #       completion, an error
    ?           an item of any value                    only in an expected diagram
    ^   !       subscription, unsubscription            only in a hot or a subscription diagram
    ` 10ms `    a duration, between spaces: us ms s m h
    ` @3s `     an instant by its time from zero, between spaces; never backwards
    ...         anything may follow                     only at the end of an expected diagram

White space and line breaks never count. What looks like a duration and does not stand between
spaces is refused, unless there are values for such keys.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, Literal

from rxflow import arguments
from rxflow.testing.diagrams.diagram import Diagram
from rxflow.testing.diagrams.durations import (
    PATTERN,
    DiagramError,
    from_parts,
    nanoseconds,
    written,
)
from rxflow.testing.diagrams.events import Event, Kind

Role = Literal["any", "hot", "cold", "expected", "marks"]
"""The purpose of a diagram: `marks` has only `-`, `^` and `!` (subscriptions, acknowledgements)."""

SPECIAL: Final = frozenset("-|#?^!().@")
"""The characters that are no keys."""

_SEPARATORS: Final = frozenset(",;")  # nothing stands between two items
_KINDS: Final = frozenset("PM")  # Unicode's letters for punctuation, and for what joins a letter
_ALIKE: Final = frozenset("\u2212\u00a6\u2223\u23d0\u23af\u01c0\u4e28\u30fc\u3161\u2303\u00b7")
"""Minus, broken bars, clicks, long vowels: letters and symbols that are drawn as a dash or bar."""

_TIME: Final = re.compile(rf"(?P<at>@?){PATTERN}(?!\S)")
_GLUED: Final = re.compile(PATTERN)
_SINGLE: Final[dict[str, Kind]] = {
    "|": "completed",
    "#": "error",
    "?": "any",
    "^": "subscribed",
    "!": "unsubscribed",
}
_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "?": ("expected",),
    "...": ("expected",),
    "^": ("hot", "marks"),
    "!": ("hot", "marks"),
}


def parse(  # noqa: PLR0913 (all but the text by name)
    text: str,
    *,
    frame: str | int = "1s",
    values: Mapping[str, Any] | None = None,
    error: BaseException | type[BaseException] | None = None,
    role: Role = "any",
    has_shared_values: bool = False,
) -> Diagram:
    """Parse a diagram.

    `parse("-a 5s (b|)").events` is `(1_000_000_000, "next", "a", "a")`,
    `(6_000_000_000, "next", "b", "b")`, `(6_000_000_000, "completed", None, "|")`.

    Args:
        text: The diagram; silence is no event.
        frame: From one character to the next: `"10ms"`, or nanoseconds.
        values: The value of each key. Without any a key is itself.
        error: What `#` is: an exception, or in an expected diagram only its class. Without one
            `Exception("#")`.
        role: What the diagram is for; what it may not have then is an error.
        has_shared_values: The values belong to several diagrams, so each may leave some unused;
            `Diagram.keys` says which it used.

    Raises:
        DiagramError: It breaks a rule. The text shows the diagram and points at the character.
    """
    step = nanoseconds(frame, "frame")
    if step <= 0:
        raise DiagramError(f"frame: longer than nothing, not {frame!r}")
    for key in values or ():
        if len(key) != 1 or not is_key(key):
            what = named(key) if len(key) == 1 else repr(key)
            raise DiagramError(f"a key is one character, and none of -|#?^!().@,; or space: {what}")
    arguments.text("a diagram", text, is_empty_fine=True)
    parser = _Parser(text, step, values or {}, error, role)
    diagram = parser.parsed()
    if not has_shared_values:
        parser.check_all_is_used(diagram)
    return diagram


def is_key(character: str) -> bool:
    """True of a character that can stand for an item: it can be seen, and looks like no other."""
    return not (
        character in SPECIAL
        or character in _SEPARATORS
        or character.isspace()
        or not character.isprintable()
        or _is_alike(character)
    )


def _is_alike(character: str) -> bool:
    """True of what people take for a dash, a bar, a dot or a mark, but is none of ours."""
    if character.isascii() or (character.isalnum() and character not in _ALIKE):
        return False
    return (
        character in _ALIKE
        or unicodedata.category(character)[0] in _KINDS
        or "\u2500" <= character <= "\u257f"  # drawn boxes
        or unicodedata.normalize("NFKC", character)[0] in SPECIAL
    )


class _Parser:
    """One pass over one text."""

    def __init__(
        self,
        text: str,
        frame: int,
        values: Mapping[str, Any],
        error: BaseException | type[BaseException] | None,
        role: Role,
    ) -> None:
        self._text = text
        self._frame = frame
        self._values = values
        self._error = error
        self._role: Role = role
        self._events: list[Event] = []
        self._until: int | None = None
        self._next = 0  # the instant of the next character
        self._last = 0  # what no time may lie before
        self._is_moved = True  # a time was written since the last character
        self._group = -1  # where the open group began
        self._end = ""  # what nothing may follow

    def parsed(self) -> Diagram:
        text, at = self._text, 0
        while at < len(text):
            if text[at].isspace():
                at += 1
            elif time := self._time_at(at):
                self._move(time, at)
                at = time.end()
            elif text.startswith("...", at):
                self._open_end(at)
                at += 3
            else:
                self._take(text[at], at)
                at += 1
        if self._group >= 0:
            raise self._wrong("unmatched (", self._group)
        return Diagram(tuple(self._events), frame=self._frame, until=self._until)

    def check_all_is_used(self, diagram: Diagram) -> None:
        unused = [key for key in self._values if key not in diagram.keys]
        if unused:
            raise DiagramError(f"no key {_listed(unused)} in the diagram {self._text!r}")
        if self._error is not None and not any(e.kind == "error" for e in diagram.events):
            raise DiagramError(f"error= is given, and no # is in the diagram {self._text!r}")

    # -- time ------------------------------------------------------------------------------------

    def _time_at(self, at: int) -> re.Match[str] | None:
        """A duration or an absolute time that begins here; both stand between spaces."""
        begins = at == 0 or self._text[at - 1].isspace()
        return _TIME.match(self._text, at) if begins else None

    def _move(self, time: re.Match[str], at: int) -> None:
        self._check_may_follow(at)
        if self._group >= 0:
            raise self._wrong("a group is one instant: no time may stand in it", at)
        try:
            length = from_parts(time["number"], time["unit"])
        except DiagramError as error:
            raise self._wrong(str(error), at) from None
        if not time["at"]:
            length += self._next if self._is_moved else self._last
        elif length < (floor := self._next if self._is_moved else self._last):
            raise self._wrong(f"{time.group()} lies before {written(floor)}", at)
        self._next = length
        self._is_moved = True

    def _pass(self) -> None:
        """The instant of a character is over."""
        self._last = self._next
        self._next += self._frame
        self._is_moved = False

    # -- characters ------------------------------------------------------------------------------

    def _take(self, char: str, at: int) -> None:
        if char == ")":
            self._close_group(at)
            return
        self._check_may_follow(at)
        if self._role == "marks" and char not in "-^!":
            other = "" if char in SPECIAL or is_key(char) else f", not {named(char)}"
            raise self._wrong(f"only -, ^ and ! stand in a diagram of subscriptions{other}", at)
        if char == "(":
            if self._group >= 0:
                raise self._wrong("a group can't stand in a group", at)
            self._group = at
            return
        is_end = char in "|#"
        if self._group >= 0:
            self._check_in_group(char, at, is_end=is_end)
        elif not self._values and (time := _GLUED.match(self._text, at)):
            key = time["number"][-1] + time["unit"][0]
            hint = f"as keys write ({key[0]}){key[1]}"
            raise self._wrong(f"a duration stands between spaces; {hint}", at)
        if char != "-":
            self._events.append(self._event(char, at))
        if is_end:
            self._end = "| or #"
        if self._group < 0:
            self._pass()

    def _event(self, char: str, at: int) -> Event:
        if char in _SINGLE:
            self._check_place(char, at)
            value = None
            if char == "#":
                value = Exception("#") if self._error is None else self._error
            return Event(self._next, _SINGLE[char], value, char)
        if not is_key(char):
            why = {
                ".": "three of them end an expected diagram",
                "@": "it begins a time between spaces, as in @3s",
            }
            raise self._wrong(f"{named(char)} is no key; {why.get(char, _why_no_key(char))}", at)
        if self._values and char not in self._values:
            raise self._wrong(f"no value named {char!r}; the values are {_all(self._values)}", at)
        return Event(self._next, "next", self._values.get(char, char), char)

    def _check_in_group(self, char: str, at: int, *, is_end: bool) -> None:
        if char in SPECIAL and not is_end:
            raise self._wrong("only keys, then | or #, stand in a group", at)
        if is_end and self._is_group_empty(at):
            raise self._wrong("a group begins with a key", at)

    def _close_group(self, at: int) -> None:
        if self._group < 0:
            raise self._wrong("unmatched )", at)
        if self._is_group_empty(at):
            raise self._wrong("a group begins with a key", at)
        self._group = -1
        self._pass()

    def _is_group_empty(self, at: int) -> bool:
        return not self._text[self._group + 1 : at].strip()

    def _open_end(self, at: int) -> None:
        self._check_may_follow(at)
        if self._group >= 0:
            raise self._wrong("only keys, then | or #, stand in a group", at)
        self._check_place("...", at)
        self._until = self._next
        self._end = "..."

    def _check_place(self, char: str, at: int) -> None:
        places = _PLACES.get(char)
        if places and self._role != "any" and self._role not in places:
            names = " or ".join(places).replace("marks", "a subscription")
            raise self._wrong(f"{char} stands only in {_article(names)} diagram", at)

    def _check_may_follow(self, at: int) -> None:
        if self._end:
            raise self._wrong(f"nothing may follow {self._end}", at)

    def _wrong(self, what: str, at: int) -> DiagramError:
        start = self._text.rfind("\n", 0, at) + 1
        line = self._text[start:].split("\n", 1)[0].expandtabs(1)
        return DiagramError(f"{what}\n    {line.rstrip()}\n    {' ' * (at - start)}^")


def named(character: str) -> str:
    """A character as an error shows it: one that is easily taken for another by its name, too."""
    name = "comma" if character == "," else unicodedata.name(character, "").lower()
    is_plain = character.isascii() and character != ","
    return repr(character) if is_plain or not name else f"{character!r} ({name})"


def _why_no_key(character: str) -> str:
    if character in _SEPARATORS:
        return "nothing stands between two items"
    if character.isprintable() and not character.isspace():
        return "silence is -, completion |, and an open end ..."
    return "it can not be seen"


def _article(names: str) -> str:
    return f"an {names}" if names[0] in "aeiou" else f"a {names}"


def _listed(keys: list[str]) -> str:
    return ", ".join(map(repr, keys))


def _all(values: Mapping[str, Any]) -> str:
    return ", ".join(values)
