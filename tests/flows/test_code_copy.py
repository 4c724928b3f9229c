"""The courier's code stays where it is, also when a run's own copy of it goes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows._reports.outbox import lasting

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the packages as a worker makes one for a run, in the folder for temporary files."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("blocks", "flows"):
        shutil.copytree(ROOT / name, tmp_path / "run" / name)
    return tmp_path / "run"


def test_what_was_copied_for_a_run_is_kept_once(copied):
    kept = lasting(copied)
    assert lasting(copied) == kept
    (copied / "flows" / "own.py").write_text("ANSWER = 42")
    changed = lasting(copied)
    assert changed != kept
    shutil.rmtree(copied)
    for folder in (kept, changed):
        code = "import flows._reports.outbox as it; print(it.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(str(folder)), done.stderr


def test_a_checkout_is_used_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert lasting(ROOT) == ROOT
