"""A program sees a short list of variables and what its block names, and nothing else."""

import os

import pytest

from blocks._command import Command
from flows._run.environment import environment

HARMLESS = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
LOCALE = {"LC_ALL", "LC_TIME"}
DANGEROUS = [
    "PREFECT_API_KEY",
    "PREFECT_API_URL",
    "PREFECT__FLOW_RUN_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_PROFILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_CLIENT_SECRET",
    "KUBECONFIG",
    "SSH_AUTH_SOCK",
    "GITHUB_TOKEN",
    "PENSTOCK_SIGNING_KEY",
    "PENSTOCK_HOME",
    "PYTHONPATH",
    "LD_PRELOAD",
    "HTTPS_PROXY",
]


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's environment: everything above, each variable with its name as value."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name in (*HARMLESS, *CERTIFICATES, *LOCALE, *DANGEROUS):
        monkeypatch.setenv(name, name)


def test_a_program_gets_harmless_variables_certificates_and_locale_and_no_more():
    given = environment(Command(argv=["x"]))
    assert given == {name: name for name in (*HARMLESS, *CERTIFICATES, *LOCALE)}


def test_what_the_engine_does_not_have_is_not_invented(monkeypatch):
    monkeypatch.delenv("TZ")
    assert "TZ" not in environment(Command(argv=["x"]))


@pytest.mark.parametrize("name", ["AWS_PROFILE", "KUBECONFIG"])
def test_a_variable_that_the_block_names_is_passed_alone(name):
    given = environment(Command(argv=["x"], pass_environment=[name]))
    assert given[name] == name
    assert [n for n in DANGEROUS if n in given] == [name]


def test_a_variable_that_is_named_and_not_there_is_left_out():
    assert "NOWHERE" not in environment(Command(argv=["x"], pass_environment=["NOWHERE"]))


def test_the_blocks_values_win_over_the_engines_and_secret_ones_over_all():
    given = environment(
        Command(
            argv=["x"],
            environment={"TZ": "UTC", "DB": "open", "AWS_PROFILE": "theirs"},
            pass_environment=["AWS_PROFILE"],
            secrets={"DB": "hunter2"},
        )
    )
    assert (given["TZ"], given["DB"], given["AWS_PROFILE"]) == ("UTC", "hunter2", "theirs")


def test_the_engines_own_environment_stays_as_it_is():
    before = dict(os.environ)
    environment(Command(argv=["x"], environment={"TZ": "UTC"}))["PATH"] = "/nowhere"
    assert dict(os.environ) == before
