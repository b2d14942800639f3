"""`docs/conformance.md` has every statement of both standards once, and tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "conformance.md").read_text()

# How many statements each section has, from 1 on. [MQTT-3-8.3-4] of 3.1.1 is a misprint of 3.8.3-4.
STATEMENTS: Final = {
    "MQTT 3.1.1": """
        1.5.3:3 2.2.2:2 2.3.1:7 3.1.0:2 3.1.2:24 3.1.3:11 3.1.4:5 3.2.0:1 3.2.2:6 3.3.1:12 3.3.2:3
        3.3.4:1 3.3.5:2 3.6.1:1 3.8.1:1 3.8.3:4 3.8.4:6 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.12.4:1
        3.14.1:1 3.14.4:3 4.1.0:2 4.3.1:1 4.3.2:2 4.3.3:2 4.4.0:1 4.5.0:2 4.6.0:6 4.7.1:3 4.7.2:1
        4.7.3:4 4.8.0:2 6.0.0:4 7.0.0:2 7.1.1:1 7.1.2:1
    """,
    "MQTT 5": """
        1.5.4:3 1.5.5:1 1.5.7:1 2.1.3:1 2.2.1:6 2.2.2:1 3.1.0:2 3.1.2:30 3.1.3:12 3.1.4:6 3.2.0:2
        3.2.2:22 3.3.1:13 3.3.2:20 3.3.4:10 3.4.2:3 3.5.2:3 3.6.1:1 3.6.2:3 3.7.2:3 3.8.1:1 3.8.3:5
        3.8.4:8 3.9.2:2 3.9.3:2 3.10.1:1 3.10.3:2 3.10.4:6 3.11.2:2 3.11.3:2 3.12.4:1 3.14.0:1
        3.14.1:1 3.14.2:4 3.14.4:3 3.15.1:1 3.15.2:3 4.1.0:2 4.2:1 4.3.1:1 4.3.2:5 4.3.3:13 4.4.0:2
        4.5.0:2 4.6.0:6 4.7.0:1 4.7.1:2 4.7.2:1 4.7.3:4 4.8.2:6 4.9.0:3 4.12.0:7 4.12.1:2 4.13.1:1
        4.13.2:1 6.0.0:4
    """,
}
NEVER_WAS: Final = {"2.2.1-1"}  # MQTT 5 begins to count at 2 there


def statements(version: str) -> set[str]:
    counted = (each.split(":") for each in STATEMENTS[version].split())
    return {f"{name}-{n + 1}" for name, count in counted for n in range(int(count))} - NEVER_WAS


def rows(version: str) -> Iterator[list[str]]:
    """The cells of the tables of a version, without their heads."""
    part = PAGE.split(f"\n## {version}\n", 1)[1].split("\n## ", 1)[0]
    for line in part.splitlines():
        if line.startswith("| ") and not line.startswith("| statement"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@cache
def named_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {each.name for each in ast.walk(tree) if isinstance(each, kinds)}


@pytest.mark.parametrize("standard", STATEMENTS)
def test_every_statement_is_on_the_page_once(standard):
    listed = [name.strip() for row in rows(standard) for name in row[0].split(",")]
    assert sorted(statements(standard) - set(listed)) == [], "missing"
    assert sorted(set(listed) - statements(standard)) == [], "no statement of this version"
    assert sorted({name for name in listed if listed.count(name) > 1}) == [], "twice"


@pytest.mark.parametrize("standard", STATEMENTS)
def test_a_statement_is_shown_by_a_test_or_left_out_with_a_reason(standard):
    for row in rows(standard):
        is_shown, is_left_out = len(row) == 3 and "::test_" in row[2], len(row) == 2
        assert is_shown or is_left_out, row
        assert all(row), row


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE))
    assert len(named) > 50
    missing = [f"{path}::{name}" for path, name in named if name not in named_in(path)]
    assert sorted(missing) == []


def test_a_test_that_is_gone_would_be_noticed():
    assert "test_that_never_was" not in named_in("tests/conformance/test_page.py")
    assert "test_a_test_that_is_gone_would_be_noticed" in named_in("tests/conformance/test_page.py")
