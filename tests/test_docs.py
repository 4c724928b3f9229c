"""The commands in README and docs are run as they stand; those that prose names do exist."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from deployments.cli import COMMANDS, parser_for
from tests.recipe import without_blocks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = {page: without_blocks(page.read_text()) for page in PAGES}
FENCED = [
    (page.name, line)
    for page, text in TEXTS.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.splitlines()
]

# What stands in running text and tables, by its words: without the fences, without line ends.
PROSE = {
    page: re.sub(r"^ *(`{3,}).*?^ *\1$", "", text, flags=re.S | re.M)
    for page, text in TEXTS.items()
}
PROGRAM = r"(?:^|\$\()((?:\.venv/bin/)?(?:penstock|make|prefect|python)(?: [^)>|]*)?)(?:$|[)>|])"
NAMED = sorted(
    {
        command.strip()
        for text in PROSE.values()
        for span in re.findall(r"`([^`]+)`", text)
        for command in re.findall(PROGRAM, " ".join(span.split()))
    }
)

# Commands that a test cannot run as they stand, each with its reason.
NOT_RUN = {
    "make run": "needs the network to set up: test_demo runs what it runs",
    "make test": "is what runs this",
    ".venv/bin/penstock listen --key .penstock/keys/signing.pub.pem --port 8090": (
        "never ends: every installation in these tests runs it"
    ),
    ".venv/bin/penstock fake slack --port 8091": "never ends: test_fakes runs it",
}


def test_there_are_few_exceptions_and_none_is_stale():
    written = {line.split("  #")[0].strip() for _, line in FENCED}
    assert set(NOT_RUN) <= written
    assert len(NOT_RUN) <= 5


@pytest.mark.full
@pytest.mark.parametrize(("page", "line"), FENCED)
def test_every_command_of_the_docs_runs(installation, page, line, tmp_path):
    line = line.split("  #")[0].strip()
    if line in NOT_RUN:
        return
    words = shlex.split(line)
    assert words[0] == ".venv/bin/penstock", line
    # A relative output of the example goes to a folder of the test's own.
    words = [word.replace('["tables"]', f'["{tmp_path}/tables"]') for word in words]
    done = installation.command(*words[1:])
    assert done.code == 0, f"{page}: {line}\n{done.out}{done.err}"


def exists(command: str) -> None:
    """Fail unless there are such a command, target or module, and the options that it is given."""
    program, *words = shlex.split(command)
    {
        "penstock": penstock_has,
        "make": make_has,
        "python": python_has,
        "prefect": prefect_has,
    }[Path(program).name](words)


def penstock_has(words: list[str]) -> None:
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in COMMANDS), "")
    given = words[name.count(" ") + 1 :]
    assert name or words in ([], ["--help"], ["COMMAND", "--help"]), words
    if name and given:
        parser_for(name).parse_args(given)


def make_has(words: list[str]) -> None:
    done = said("env", "--unset=MAKEFLAGS", "--unset=MAKELEVEL", "make", "--dry-run", *words)
    assert "no kind is called" not in done


def python_has(words: list[str]) -> None:
    assert words[0] == "-m"
    assert find_spec(words[1]), words[1]
    for word in words[2:]:
        assert "/" not in word or (ROOT / word).exists(), word
    if any(word.startswith("-") for word in words[2:]):
        options(words[2:], sys.executable, "-m", words[1])


def prefect_has(words: list[str]) -> None:
    command = [word for word in words[:2] if not word.startswith("-")]
    options(words[len(command) :], sys.executable, "-m", "prefect", *command)


def options(words: list[str], *command: str) -> None:
    """Fail unless the help of `command` tells of the options among `words`."""
    known = re.findall(r"(?<![\w-])--?\w[\w-]*", said(*command, "--help"))
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= {*known}


def said(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", NAMED)
def test_every_command_that_running_text_names_exists(command):
    exists(command)


@pytest.mark.parametrize(
    "command",
    [
        "penstock rum",
        "penstock reports lost",
        "penstock run demo --nope",
        "make nothing",
        "make test-sprak",
        "python -m benchmarks.nothing",
        "python -m benchmarks.reports --slow",
        ".venv/bin/python -m pytest tests/nothing.py",
        "prefect flow-run cancle",
        "prefect deploy --everything",
    ],
)
def test_a_command_that_does_not_exist_is_not_taken_for_one(command):
    with pytest.raises((AssertionError, SystemExit)):
        exists(command)


def test_the_commands_of_running_text_are_found():
    assert {"make run", "penstock stop RUN", "penstock completion bash"} <= {*NAMED}


def test_every_link_of_the_docs_leads_somewhere():
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_path_that_the_docs_name_exists():
    for page, text in TEXTS.items():
        for named in re.findall(r"`((?:flows|blocks|deployments)/[\w/.]+\.\w+)`", text):
            assert (ROOT / named).exists(), f"{page.name}: {named}"
