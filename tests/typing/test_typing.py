from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rxflow import _fluent
from rxflow.operators import OPERATORS

HERE = Path(__file__).parent


def tool(name: str) -> str:
    found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, dict[int, list[str]]]:
    """What pyright says of each line of each file here."""
    files = ["pipelines.py", "annotated.py", "fluent.py", "wrong.py"]
    folder = tmp_path_factory.mktemp("pyright")
    for name in files:  # pyright reads nothing outside of its project
        shutil.copy(HERE / name, folder)
    project = folder / "pyrightconfig.json"
    settings = {
        "extraPaths": [str(HERE.parent.parent)],
        "typeCheckingMode": "strict",
        "reportMissingTypeStubs": False,
    }
    project.write_text(json.dumps(settings))
    command = [tool("pyright"), "--outputjson", "-p", str(project), "--pythonpath", sys.executable]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(ran.stdout)
    assert answer["summary"]["filesAnalyzed"] == len(files)
    found: dict[str, dict[int, list[str]]] = {name: {} for name in files}
    for one in answer["generalDiagnostics"]:
        lines = found[Path(one["file"]).name]
        lines.setdefault(one["range"]["start"]["line"] + 1, []).append(one["rule"])
    return found


@pytest.mark.parametrize("name", ["pipelines.py", "annotated.py", "fluent.py"])
def test_pyright_knows_the_types_of_a_pipeline(said, name):
    assert said[name] == {}


def test_pyright_refuses_each_wrong_pipeline_for_what_is_wrong_with_it(said):
    lines = (HERE / "wrong.py").read_text().splitlines()
    expected = {
        number: set(re.findall(r"report\w+", line))
        for number, line in enumerate(lines, 1)
        if "# report" in line
    }
    unknown = re.compile("reportUnknown.*")
    named = {
        number: {rule for rule in rules if not unknown.match(rule)}
        for number, rules in said["wrong.py"].items()
    }
    assert {number: rules for number, rules in named.items() if rules} == expected


@pytest.fixture(scope="module")
def mypy_said(tmp_path_factory) -> dict[str, dict[int, set[str]]]:
    """What mypy says of each line of the examples, and of each file here that is for it."""
    here = [HERE / "annotated.py", HERE / "fluent.py", HERE / "wrong_annotated.py"]
    paths = [*here, *sorted((HERE.parent.parent / "examples").glob("*.py"))]
    cache = str(tmp_path_factory.mktemp("mypy"))
    command = [tool("mypy"), "--strict", "--cache-dir", cache, *map(str, paths)]
    root = HERE.parent.parent
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert f"checked {len(paths)} source files" in ran.stdout, ran.stdout + ran.stderr
    found: dict[str, dict[int, set[str]]] = {}
    for path, number, rule in re.findall(
        r"^(.+):(\d+): error: .*\[([a-z-]+)\]$", ran.stdout, re.MULTILINE
    ):
        found.setdefault(Path(path).name, {}).setdefault(int(number), set()).add(rule)
    return found


def test_mypy_passes_on_the_examples_and_knows_the_types_of_annotated_functions(mypy_said):
    assert {name: lines for name, lines in mypy_said.items() if name != "wrong_annotated.py"} == {}


def test_mypy_refuses_each_wrong_pipeline_of_annotated_functions(mypy_said):
    expected = {
        number: set(re.findall(r"[a-z]+(?:-[a-z]+)*", line.partition("# mypy: ")[2]))
        for number, line in enumerate((HERE / "wrong_annotated.py").read_text().splitlines(), 1)
        if "# mypy: " in line
    }
    assert mypy_said["wrong_annotated.py"] == expected


def test_the_typed_fluent_methods_take_what_the_operators_take():
    tree = ast.parse(Path(_fluent.__file__).read_text(encoding="utf-8"))
    [fluent] = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    typed = [node for node in fluent.body if isinstance(node, ast.FunctionDef)]
    for method in typed:
        taken = inspect.signature(OPERATORS[method.name]).parameters
        assert [arg.arg for arg in method.args.args[1:]] == [
            name for name, each in taken.items() if each.kind is each.POSITIONAL_OR_KEYWORD
        ]
        assert [arg.arg for arg in method.args.kwonlyargs] == [
            name for name, each in taken.items() if each.kind is each.KEYWORD_ONLY
        ]
    assert len({method.name for method in typed}) >= 13
