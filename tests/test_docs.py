"""The commands in README and docs are run as they stand."""

import re
import shlex
from pathlib import Path

import pytest

from tests.recipe import without_blocks

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = {page: without_blocks(page.read_text()) for page in PAGES}
COMMANDS = [
    (page.name, line)
    for page, text in TEXTS.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.splitlines()
]

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
    written = {line.split("  #")[0].strip() for _, line in COMMANDS}
    assert set(NOT_RUN) <= written
    assert len(NOT_RUN) <= 5


@pytest.mark.full
@pytest.mark.parametrize(("page", "line"), COMMANDS)
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


def test_every_link_of_the_docs_leads_somewhere():
    for page, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)#]+)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_path_that_the_docs_name_exists():
    for page, text in TEXTS.items():
        for named in re.findall(r"`((?:flows|blocks|deployments)/[\w/.]+\.\w+)`", text):
            assert (ROOT / named).exists(), f"{page.name}: {named}"
