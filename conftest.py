"""What all tests share, and the pages: every Python block of README.md and docs/ is run.

A page is one program, in a folder that has only the certificate which the guide names.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import hypothesis
from brokers import Authority
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from rxflow.log import logger

# Coverage has started this worker, and would start in all that its tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# No test depends on speed. In a fresh clone the first text that Hypothesis draws costs it five
# seconds of coverage, for its table of Unicode.
hypothesis.settings.register_profile(
    "rxflow", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("rxflow")

_FOLDER = "folder of this page"

# Begun first, for they are long, and some of them wait rather than compute.
_LONG = (
    "test_hanging_disk.py",
    "test_typing.py",
    "test_laws.py",
    "test_random_pipelines.py",
    "test_exactly_once.py",
    "test_crash.py",
    "test_sink.py",
)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Put the long files first; `make test` gives a file to a worker as they come."""
    items.sort(key=lambda item: item.path.name not in _LONG)


def _begin(namespace: MutableMapping[str, Any]) -> None:
    folder = namespace[_FOLDER] = contextlib.ExitStack()
    folder.enter_context(contextlib.chdir(folder.enter_context(tempfile.TemporaryDirectory())))
    Authority(Path(), "plant-ca")


def _end(namespace: MutableMapping[str, Any]) -> None:
    namespace[_FOLDER].close()
    logger.disable("rxflow")  # `run` has enabled it


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md"],
    setup=_begin,
    teardown=_end,
).pytest()
