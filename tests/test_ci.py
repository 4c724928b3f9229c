"""CI runs what anybody can run: the workflow calls .ci/run, and that calls make."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
KINDS = sorted(path.stem for path in (ROOT / "flows").glob("[a-z]*.py"))


def make(*words: str) -> subprocess.CompletedProcess[str]:
    # Without the variables of a make that runs these tests.
    command = ["env", "--unset=MAKEFLAGS", "--unset=MAKELEVEL", "make", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def steps() -> list[dict[str, str]]:
    return [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_the_workflow_runs_the_script_and_nothing_else():
    assert [step["run"] for step in steps() if "run" in step] == [".ci/run"]


def test_the_workflow_may_only_read_and_names_the_very_commit_of_each_action():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    for step in steps():
        assert "run" in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])


def test_the_container_lets_tests_have_namespaces_of_their_own():
    given = WORKFLOW["jobs"]["run"]["container"]["options"].split()
    assert "--init" in given
    assert given[given.index("--cap-add") + 1] == "SYS_ADMIN"
    assert given[given.index("--security-opt") + 1] == "apparmor=unconfined"


def test_the_script_makes_only_what_can_be_made():
    lines = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.M)
    called = " ".join(lines).split()
    assert called == ["check", "test", "test-full"]
    for target in called:
        done = make("--dry-run", target)
        assert done.returncode == 0, done.stderr
        assert "no kind is called" not in done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_target_that_runs_all_its_tests(kind):
    planned = make("--dry-run", f"test-{kind}").stdout.splitlines()[-1]
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob(f"test_{kind}*.py")}
    assert files
    assert set(planned.split()) >= files
    assert "not full" not in planned


def test_an_unknown_kind_is_one_clear_error_that_lists_the_kinds():
    done = make("test-sprak")
    assert done.returncode == 2
    assert done.stderr.startswith("make: no kind is called 'sprak'; there are ")
    assert sorted(done.stderr.splitlines()[0].rpartition("are ")[2].split()) == KINDS
