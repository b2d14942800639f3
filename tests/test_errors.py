"""Every text of an error or a warning, as a page: `pytest tests/test_errors.py -s` prints it."""

from __future__ import annotations

import ast
from pathlib import Path

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
        return f"{written(node.body)} | {written(node.orelse)}"
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
