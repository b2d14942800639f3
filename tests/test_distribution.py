"""The distribution is `rxflow-mqtt`, the import `rxflow`; every `pip install` says so."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import rxflow

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_installed_metadata_is_that_of_the_project():
    installed = metadata("rxflow-mqtt")
    assert installed["Version"] == rxflow.__version__
    assert len(installed.get_all("Project-URL")) == len(PROJECT["urls"])


def test_every_pip_install_names_the_distribution_and_an_extra_that_there_is():
    extras = "|".join(PROJECT["optional-dependencies"])
    told = re.compile(rf"pip install (rxflow-mqtt|'rxflow-mqtt\[({extras})\]')")
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("rxflow/**/*.py")]
    texts = [text for page in pages for text in re.findall(r"pip install.{25}", page.read_text())]
    assert len(texts) > 4
    assert [text for text in texts if not told.match(text)] == []
