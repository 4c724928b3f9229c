"""The six steps of CONTRIBUTING add a kind of job, and a step left out is missed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipe import ROOT, steps

STEPS = steps()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git knows of this checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0")[:-1]:
        copy = tmp_path / "checkout" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy)
    return tmp_path / "checkout"


def follow(checkout: Path, *, without: int | None = None) -> None:
    for number, blocks in STEPS.items():
        for block in blocks if number != without else []:
            block.apply(checkout)


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m WORDS` in the copy, on the code of the copy."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_six_steps_and_each_fits_the_files_it_alters(checkout):
    assert list(STEPS) == [1, 2, 3, 4, 5, 6]
    assert all(STEPS.values())
    follow(checkout)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_kind_added_by_the_steps_passes_every_check_and_runs(checkout):
    follow(checkout)
    for words in (
        ["ruff", "format", "--check", "."],
        ["ruff", "check", "."],
        ["mypy"],
        ["pytest", "-q", "-k", "archive or test_layout or registry or slug"],
    ):
        done = run(checkout, *words)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"


@pytest.mark.full
@pytest.mark.parametrize("number", STEPS)
def test_a_step_left_out_is_named_by_the_layout_test(checkout, number):
    follow(checkout, without=number)
    done = run(checkout, "pytest", "-q", "tests/test_layout.py", "-k", "complete")
    assert done.returncode == 1, done.stdout + done.stderr
    for block in STEPS[number]:
        assert block.path in done.stdout
