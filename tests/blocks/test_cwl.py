"""What would run for one job of a CWL workflow."""

from typing import Any

import pytest
from pydantic import ValidationError

from blocks import CwlConfig
from blocks._command import Command
from blocks.errors import ConfigError

ARGV = ["echo", "a b", "--x=y", "naïve ✈", ""]
OF_THE_TOOL = {"HOME": "/job/out", "TMPDIR": "/job/tmp"}


def command(**settings: Any) -> Command:
    return CwlConfig(**settings).command(ARGV, OF_THE_TOOL)


def test_the_command_is_the_tools_own_and_writes_no_files():
    assert command() == Command(argv=ARGV, environment=OF_THE_TOOL)


def test_the_blocks_variables_come_on_top_and_the_tools_win():
    made = command(environment={"A": "b", "HOME": "/mine"})
    assert made.environment == {"A": "b", "HOME": "/job/out", "TMPDIR": "/job/tmp"}


def test_secret_and_passed_variables_are_the_blocks():
    made = command(
        parallel=1, secret_environment={"DB": "hunter2"}, pass_environment=["AWS_PROFILE"]
    )
    assert made.secrets == {"DB": "hunter2"}
    assert made.pass_environment == ["AWS_PROFILE"]
    assert made.environment == OF_THE_TOOL
    assert "hunter2" not in repr(made)


def test_a_secret_that_is_no_text_is_set_as_text():
    assert command(secret_environment={"PORT": 5432}).secrets == {"PORT": "5432"}


@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_URL", "prefect_home"])
def test_prefects_own_variables_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=name):
        CwlConfig(pass_environment=["HOST", name])


@pytest.mark.parametrize("wrong", [{"parallel": 0}, {"on_error": "ignore"}])
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ValidationError):
        CwlConfig(**wrong)


def test_command_is_pure():
    block = CwlConfig(environment={"A": "b"})
    first, second = (block.command(ARGV, OF_THE_TOOL) for _ in range(2))
    assert first == second
    first.environment["A"] = "changed"
    assert block.command(ARGV, OF_THE_TOOL) == second
