"""One word for each thing: what docstrings, errors and pages say, and what they don't."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_errors import PAGE

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *(ROOT / "docs" / f"{name}.md" for name in ("guide", "glossary", "reliability", "operators")),
    *(ROOT / "docs" / f"{name}.md" for name in ("testing", "acknowledgement")),
]
OPENINGS = re.compile(r"\s*(what|which|where|how|who|whose|whom)\b", re.IGNORECASE)
FORBIDDEN = {
    "twice is once": "safe to call more than once",
    "set aside": "rejected",
    "sets aside": "rejects",
    "left to the broker": "unacknowledged",
    "standstill": "stall",
    "standing still": "stalled",
    "surroundings": "environment",
    "the end of time": "a time limit",
    "is not coming": "will not be delivered",
    "an error rather than patience": "fail instead of retrying forever",
}
IN_TEXTS = FORBIDDEN | {"let go": "filtered, or dropped", "lets go": "filters, or drops"}


def docstrings():
    """Each text that documents a module, a class, a function or an attribute of rxflow."""
    for path in sorted((ROOT / "rxflow").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            body = getattr(node, "body", None)
            for each in body if isinstance(body, list) else ():
                if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant):
                    text = each.value.value
                    if isinstance(text, str):
                        yield f"{path.relative_to(ROOT)}:{each.lineno}", text


def found(text, words):
    """The forbidden words in a text, each with the one to use."""
    flat = " ".join(text.split()).lower()
    return [f"{word} -> {better}" for word, better in words.items() if word in flat]


def test_no_docstring_begins_with_a_question():
    assert [place for place, text in docstrings() if OPENINGS.match(text)] == []


def test_docstrings_use_one_word_for_each_thing():
    assert {place: bad for place, text in docstrings() if (bad := found(text, FORBIDDEN))} == {}


def test_errors_use_one_word_for_each_thing():
    assert {place: bad for place, text in PAGE if (bad := found(text, IN_TEXTS))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_uses_one_word_for_each_thing(page):
    assert found(page.read_text(encoding="utf-8"), IN_TEXTS) == []
