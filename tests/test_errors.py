"""Every text of an error or a warning, as a page: `pytest tests/test_errors.py -s` prints it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rxflow import ConfigError, Report, from_mqtt
from rxflow.log import number_of

ROOT = Path(__file__).parent.parent / "rxflow"
TELLING = {"tell", "announce", "warn", "warning", "error", "refuse"}


def texts(tree):
    """Each text that an error is made with, or that `tell` and the log's `warning` are given."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        if name.endswith(("Error", "_error")) or name in TELLING:
            arguments = [*call.args, *(each.value for each in call.keywords)]
            text = "; ".join(filter(None, map(written, arguments)))
            if " " in text:
                yield call.lineno, text


def written(node):
    """A text as the source has it, with `{...}` for what is filled in; empty if it is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            each.value if isinstance(each, ast.Constant) else f"{{{ast.unparse(each.value)}}}"
            for each in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return written(node.left) + written(node.right)
    if isinstance(node, ast.IfExp):
        return " | ".join(filter(None, (written(node.body), written(node.orelse))))
    return ""


PAGE = [
    (f"{path.relative_to(ROOT)}:{line}", text)
    for path in sorted(ROOT.rglob("*.py"))
    for line, text in sorted(texts(ast.parse(path.read_text(encoding="utf-8"))))
]


def test_the_page_of_errors_is_printed():
    for place, text in PAGE:
        print(f"{place:40} {text}")  # noqa: T201
    assert len(PAGE) > 150


def test_an_error_ends_without_punctuation():
    assert [place for place, text in PAGE if re.search(r"[.,:;\s]$", text)] == []


def test_an_error_is_one_sentence():
    assert [place for place, text in PAGE if re.search(r"[a-z}]\. [A-Z{]", text)] == []


def test_an_argument_is_refused_in_one_form():
    with pytest.raises(ConfigError) as refused:
        from_mqtt(7, "a")
    assert str(refused.value) == "url must be a str, not int"


def test_one_is_one():
    report = Report(1, 1, 0, 0, 0, commits=1, bytes=1, seconds=1.0)
    assert str(report).endswith("; 1 commit, 1 byte, 1.0 s")
    assert (number_of(1, "row"), number_of(1_000, "row")) == ("1 row", "1,000 rows")
