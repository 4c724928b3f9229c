"""What would run for a notebook: one program and the spec it reads."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blocks import NotebookConfig
from blocks._command import Command
from blocks.errors import ConfigError

FOLDER = Path("/runs/my run")
PARAMETERS = {"day": "2026-01-01", "naïve ✈": [1, 2.5, None, True], "deep": {"a": {}}}


def command(html: Path | None = None, folder: Path = FOLDER, **settings: Any) -> Command:
    return NotebookConfig(**settings).command(
        Path("/in/report.ipynb"),
        PARAMETERS,
        folder=folder,
        output=Path("/out/report.ipynb"),
        html=html,
    )


def test_the_program_is_our_own_with_this_python_and_the_spec_in_the_folder():
    assert command().argv == [
        sys.executable,
        "-m",
        "flows._notebook.execute",
        "/runs/my run/notebook.json",
    ]


def test_the_spec_of_a_block_left_as_it_is_holds_the_defaults():
    made = command()
    assert list(made.files) == ["notebook.json"]
    assert json.loads(made.files["notebook.json"]) == {
        "notebook": "/in/report.ipynb",
        "parameters": PARAMETERS,
        "kernel": None,
        "output": "/out/report.ipynb",
        "html": None,
        "hide_input": False,
        "cell_timeout": None,
    }


def test_the_spec_holds_every_setting():
    made = command(Path("/out/r.html"), kernel="ir", hide_input=True, cell_timeout=1)
    spec = json.loads(made.files["notebook.json"])
    assert spec["kernel"] == "ir"
    assert spec["html"] == "/out/r.html"
    assert spec["hide_input"] is True
    assert spec["cell_timeout"] == 1


def test_the_environment_is_what_the_block_names_and_no_more():
    made = command(
        environment={"A": "b"}, secret_environment={"DB": "hunter2"}, pass_environment=["HOST"]
    )
    assert made.environment == {"A": "b"}
    assert made.secrets == {"DB": "hunter2"}
    assert made.pass_environment == ["HOST"]
    assert command().environment == {}


def test_a_secret_is_not_in_the_spec_nor_in_what_the_command_shows_of_itself():
    made = command(secret_environment={"DB": "hunter2"})
    assert "hunter2" not in repr(made)
    assert "hunter2" not in repr(made.files)


@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_URL", "prefect_home"])
def test_prefects_own_variables_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=name):
        NotebookConfig(pass_environment=["HOST", name])


@pytest.mark.parametrize("wrong", [{"cell_timeout": 0}, {"time_limit": 0}, {"time_limit": -1}])
def test_a_time_that_is_none_is_refused(wrong):
    with pytest.raises(ValidationError):
        NotebookConfig(**wrong)


def test_command_is_pure(tmp_path):
    assert command(folder=tmp_path) == command(folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_who_adds_to_a_commands_environment_does_not_change_the_block():
    block = NotebookConfig(environment={"A": "b"})
    made = block.command(Path("a"), {}, folder=FOLDER, output=Path("b"), html=None)
    made.environment["PENSTOCK_RESULT"] = "/somewhere"
    assert block.environment == {"A": "b"}
