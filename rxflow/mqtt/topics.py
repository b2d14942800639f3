"""Topics and topic filters [MQTT-4.7]: what is valid, and what matches what. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Final

from rxflow.arguments import wrong

_LONGEST: Final = 65_535  # bytes: a string's length has two of them [MQTT-1.5.4]
_SHOWN: Final = 100
_SHARE: Final = "$share"
_QUEUE: Final = "$queue"  # EMQX and others: shared by all who ask so, without the name of a group


def check_filter(filter: str) -> None:
    """Refuse what no broker may accept as a topic filter.

    Raises:
        ConfigError: It is malformed; the text names the filter and the rule.
    """
    if problem := next(_problems(filter), None):
        shown = f"{filter[:_SHOWN]!r}{'…' * (len(filter) > _SHOWN)}"
        raise wrong("topics", f"be topic filters, not {shown}: {problem}")


def _problems(filter: str) -> Iterator[str]:  # noqa: C901 (one case for each rule)
    if any("\ud800" <= character <= "\udfff" for character in filter):
        yield "it holds half a surrogate pair, which UTF-8 can't carry"  # [MQTT-1.5.4-1]
    length = len(filter.encode(errors="surrogatepass"))
    if length > _LONGEST:
        yield f"{length:,} bytes are more than {_LONGEST:,}"  # [MQTT-4.7.3-3]
    if "\0" in filter:
        yield "it holds U+0000"  # [MQTT-4.7.3-2]
    levels = filter.split("/")
    if levels[0] == _SHARE:
        group, levels = "".join(levels[1:2]), levels[2:]
        if not group or "+" in group or "#" in group:  # [MQTT-4.8.2-1], [MQTT-4.8.2-2]
            yield "after $share/ comes the name of a group, without '+' and '#'"
        if not "/".join(levels):
            yield "after $share/group/ comes a topic filter"
    elif levels[0] == _QUEUE and len(levels) > 1:
        levels = levels[1:]
        if not "/".join(levels):
            yield "after $queue/ comes a topic filter"
    if not "/".join(levels):
        yield "it is empty"  # [MQTT-4.7.3-1]
    if "#" in "/".join(levels)[:-1]:
        yield "'#' must be the last character"  # [MQTT-4.7.1-1]
    if any(len(level) > 1 and ("#" in level or "+" in level) for level in levels):
        yield "'+' and '#' must stand alone in their level"  # [MQTT-4.7.1-1], [MQTT-4.7.1-2]


def check_topic(topic: bytes) -> str:
    """Decode the topic of a message from the network.

    Raises:
        ValueError: It is empty, not UTF-8, or holds a wildcard or U+0000 [MQTT-3.3.2-2].
    """
    if not topic:
        raise ValueError("an empty topic")
    text = topic.decode()
    for forbidden, name in (("+", "a wildcard"), ("#", "a wildcard"), ("\0", "U+0000")):
        if forbidden in text:
            raise ValueError(f"a topic with {name}")
    return text


def matcher(filters: Iterable[str]) -> Callable[[str], bool]:
    """Make a predicate: does a topic match any of these filters?

    Args:
        filters: Valid topic filters; `$share/group/filter` and `$queue/filter` match as `filter`
            does.
    """
    plain = [_unshared(filter) for filter in filters]
    exact = frozenset(filter for filter in plain if "+" not in filter and "#" not in filter)
    wild = "|".join(_pattern(filter) for filter in plain if filter not in exact)
    if not wild:
        return exact.__contains__
    matches = re.compile(wild, re.DOTALL).fullmatch
    return lambda topic: topic in exact or matches(topic) is not None


def is_shared(filter: str) -> bool:
    """Whether a filter is one of a shared subscription, whose messages go to one of its members."""
    return filter.startswith((f"{_SHARE}/", f"{_QUEUE}/"))


def overlap(one: str, other: str) -> bool:
    """Whether a topic may match both filters."""
    return _overlap(_unshared(one).split("/"), _unshared(other).split("/"))


def _overlap(one: list[str], other: list[str]) -> bool:
    if {one[0], other[0]} & {"+", "#"} and "$" in {one[0][:1], other[0][:1]}:
        return False  # [MQTT-4.7.2-1]
    for ours, theirs in zip_longest(one, other):
        if "#" in {ours, theirs}:
            return True
        if ours is None or theirs is None:  # 'a/#' matches 'a' too [MQTT-4.7.1-2]
            return False
        if "+" not in {ours, theirs} and ours != theirs:
            return False
    return True


def _unshared(filter: str) -> str:
    if filter.startswith(f"{_SHARE}/"):
        return filter.split("/", 2)[2]
    return filter.removeprefix(f"{_QUEUE}/")


def _pattern(filter: str) -> str:
    # A wildcard in the first level doesn't match topics that begin with '$' [MQTT-4.7.2-1].
    start = r"(?!\$)" if filter[0] in "+#" else ""
    if filter == "#":
        return f"{start}.*"
    # 'a/#' matches 'a' too: the parent level is part of it [MQTT-4.7.1-2].
    parent, is_open = filter.removesuffix("/#"), filter.endswith("/#")
    levels = ("[^/]*" if level == "+" else re.escape(level) for level in parent.split("/"))
    return start + "/".join(levels) + "(?:/.*)?" * is_open
