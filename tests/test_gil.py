"""A Python without the global interpreter lock is refused."""

import importlib
import subprocess
import sys

import pytest

from rxflow import _gil


def test_a_python_without_the_lock_is_refused_with_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with pytest.raises(ImportError, match=r"without the global interpreter lock.*PYTHON_GIL=1"):
        importlib.reload(_gil)


def test_a_python_with_the_lock_or_one_that_knows_no_other_is_taken(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    importlib.reload(_gil)
    monkeypatch.delattr(sys, "_is_gil_enabled")
    importlib.reload(_gil)


def test_it_is_refused_before_anything_else_is_imported():
    program = (
        "import sys\n"
        "sys._is_gil_enabled = lambda: False\n"
        "try:\n"
        "    import rxflow\n"
        "except ImportError as error:\n"
        "    assert 'PYTHON_GIL=1' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
        "assert not {'reactivex', 'orjson', 'paho'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
