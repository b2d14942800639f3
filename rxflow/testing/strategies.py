"""Hypothesis strategies: the diagram itself is what is generated, so a failing example shrinks.

@given(marble_diagrams("abc"))
def test_nothing_follows_the_end(text):
    marbles = Marbles()
    marbles.check(marbles.cold(text).pipe(ops.map(lambda x: x)), text)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from rxflow.testing.diagrams.durations import PATTERN, DiagramError
from rxflow.testing.diagrams.notation import is_key

_DURATION: Final = re.compile(PATTERN)  # keys like 3 and s side by side


def marble_diagrams(
    keys: str = "abc", max_length: int = 20, terminal: str = "|#", *, groups: bool = True
) -> st.SearchStrategy[str]:
    """Texts of source diagrams, for `hot`, `cold` and `parse`.

    They shrink to fewer frames, then to silence, then to the first key.

    Args:
        keys: The characters for items.
        max_length: Most frames, the last one included; a group is one.
        terminal: How they may end: `"|"`, `"#"`, both, or `""` for never. Both may be missing, so
            `"|#"` also makes diagrams without an end.
        groups: Whether several items may share an instant.

    Raises:
        DiagramError: At call time, when an argument is wrong.
    """
    if not keys or not all(map(is_key, keys)):
        raise DiagramError(f"keys: characters, none of -|#?^!().@ or space, not {keys!r}")
    if max_length < 1:
        raise DiagramError(f"max_length: >= 1, not {max_length!r}")
    if set(terminal) - set("|#"):
        raise DiagramError(f"terminal: | or #, both or nothing, not {terminal!r}")
    key, ends = st.sampled_from(keys), st.sampled_from(["", *terminal])
    if groups:
        items = st.lists(key, max_size=3)  # shorter is simpler: so a group shrinks to one item
        frame = items.map(lambda together: _instant(together) or "-")
        last = st.tuples(items, ends).map(lambda both: _instant([*both[0], *both[1]]))
    else:
        frame, last = st.just("-") | key, ends
    frames = st.lists(frame, max_size=max_length - 1).map("".join)
    texts = st.tuples(frames, last).map("".join)
    return texts.filter(lambda text: not _DURATION.search(text))


def _instant(parts: Sequence[str]) -> str:
    text = "".join(parts)
    return f"({text})" if len(parts) > 1 else text
