"""What stands here is written by somebody else: public names alone, and short."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

FILES = sorted(p for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("test_"))
FACES = {"rxflow", "rxflow.abc", "rxflow.operators", "rxflow.testing", "rxflow.broker"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_imports_faces_and_public_names_alone(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module or "", alias.name) for alias in node.names]
    ours = [(module, name) for module, name in found if module.split(".")[0] == "rxflow"]
    assert ours
    for module, name in ours:
        assert module in FACES
        exported = importlib.import_module(module).__all__ if name else ()
        assert name is None or name in exported or f"{module}.{name}" in FACES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_looks_into_nothing_of_another_object(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            assert isinstance(node.value, ast.Name)
            assert node.value.id == "self", ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_shorter_than_60_lines(path):
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 60
