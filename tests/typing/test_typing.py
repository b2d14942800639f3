from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_pyright_knows_the_types_of_a_pipeline(tmp_path):
    pyright = shutil.which("pyright", path=Path(sys.executable).parent) or shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    project = tmp_path / "pyrightconfig.json"
    settings = {
        "include": [str(HERE / "pipelines.py")],
        "extraPaths": [str(HERE.parent.parent)],
        "typeCheckingMode": "strict",
        "reportMissingTypeStubs": False,
    }
    project.write_text(json.dumps(settings))
    ran = subprocess.run(
        [pyright, "--project", str(project), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
