"""Every entry of prefect.yaml loads as a worker loads it, and says nothing that Prefect ignores."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

ROOT = Path(__file__).parent.parent
LAYERS = ("blocks", "flows", "deployments")
TEXT = yaml.safe_load((ROOT / "prefect.yaml").read_text())
ENTRYPOINTS = {entry["name"]: entry["entrypoint"] for entry in TEXT["deployments"]}
PROGRAM = ROOT / "tests" / "programs" / "load_entries.py"


def file_form(entrypoint: str) -> str:
    module, _, function = entrypoint.rpartition(".")
    return f"{module.replace('.', '/')}.py:{function}"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder into which the wheel of this checkout was unpacked."""
    source, wheels, unpacked = (tmp_path_factory.mktemp(n) for n in ("source", "wheels", "wheel"))
    # A copy, since building leaves folders behind.
    for layer in LAYERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / layer, source / layer, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, *offline], check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    zipfile.ZipFile(wheel).extractall(unpacked)
    return unpacked


@pytest.fixture(scope="module", params=["checkout", pytest.param("wheel", marks=pytest.mark.full)])
def folder(request: pytest.FixtureRequest) -> Path:
    return ROOT if request.param == "checkout" else request.getfixturevalue("unpacked")


@pytest.fixture(scope="module")
def loaded(folder, everything_up) -> dict[str, dict[str, Any]]:
    """What each entrypoint loaded in `folder`, by the entrypoint, module form and file form."""
    entrypoints = [form(e) for e in ENTRYPOINTS.values() for form in (str, file_form)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.read_text(), *entrypoints],
        cwd=folder,
        env={**os.environ, "PENSTOCK_HOME": str(everything_up.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {got["entrypoint"]: got for got in map(json.loads, done.stdout.splitlines())}


def in_four_ways(test):
    test = pytest.mark.parametrize("form", [str, file_form], ids=["module form", "file form"])(test)
    return pytest.mark.parametrize("name", ENTRYPOINTS)(test)


@in_four_ways
def test_each_entry_loads_with_its_name_hooks_and_guard(loaded, name, form):
    got = loaded[form(ENTRYPOINTS[name])]
    assert got["name"] == ENTRYPOINTS[name].rpartition(".")[2].replace("_", "-")
    assert got["guarded"]
    assert got["persists"]
    for moment, hooks in got["hooks"].items():
        assert "report_run" in hooks, moment
        for hook, parameters in hooks.items():
            assert parameters == ["flow", "flow_run", "state"], f"{moment}: {hook}"


@in_four_ways
def test_each_entry_is_made_of_the_files_of_one_place(loaded, folder, name, form):
    # An editable install is there, too: what a wheel lacks would come from there.
    files = [Path(file) for file in loaded[form(ENTRYPOINTS[name])]["files"]]
    assert [file for file in files if not file.resolve().is_relative_to(folder.resolve())] == []
    assert folder / "blocks" / "__init__.py" in files


@in_four_ways
def test_the_blocks_of_each_entry_are_the_classes_of_blocks(loaded, name, form):
    got = loaded[form(ENTRYPOINTS[name])]
    assert got["strangers"] == []
    several = {"demo": ["CwlConfig", "NotebookConfig", "SparkConfig"], "redeliver": [], "sweep": []}
    assert sorted(got["blocks"]) == several.get(name, [f"{name.capitalize()}Config"])


@in_four_ways
def test_hooks_called_by_keyword_tell_a_cancellation_and_a_crash(
    loaded, installation, eventually, name, form
):
    for run_id in loaded[form(ENTRYPOINTS[name])]["told"]:
        (told,) = eventually(lambda run_id=run_id: installation.told(run_id, "progress"))
        assert told["state"] == "failed"


def test_the_wheel_holds_every_file_of_the_three_folders(unpacked):
    def files(root: Path) -> set[str]:
        found = (path for layer in LAYERS for path in (root / layer).rglob("*") if path.is_file())
        return {str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts}

    assert files(unpacked) == files(ROOT)


def strict(text: dict[str, Any]) -> None:
    """Raise ValidationError for what Prefect, or a run's process, would not look at."""
    anchors = "definitions"  # ours, for YAML alone: what refers to them is looked at in its place
    told = {name: value for name, value in text.items() if name != anchors}
    variables = ProcessWorker.job_configuration_variables
    assert variables
    for entry in PrefectYamlModel.model_validate(told, extra="forbid").deployments:
        assert entry.work_pool, entry.name
        variables.model_validate(entry.work_pool.job_variables, extra="forbid")


def scheduled() -> dict[str, Any]:
    """prefect.yaml, its first entry with a schedule; without YAML's shared parts."""
    text: dict[str, Any] = json.loads(json.dumps(TEXT))
    text["deployments"][0]["schedules"] = [{"cron": "0 6 * * *", "timezone": "Europe/Oslo"}]
    return text


def test_prefect_yaml_says_nothing_that_prefect_ignores():
    strict(TEXT)
    strict(scheduled())


@pytest.mark.parametrize(
    "place",
    [
        (),
        ("deployments", 0),
        ("deployments", 0, "work_pool"),
        ("deployments", 0, "work_pool", "job_variables"),
        ("deployments", 0, "schedules", 0),
    ],
    ids=lambda place: "/".join(map(str, place)) or "top level",
)
def test_a_typo_is_found_wherever_it_is(place):
    text = part = scheduled()
    for step in place:
        part = part[step]
    name, value = part.popitem()
    part[f"{name}x"] = value
    with pytest.raises(ValidationError, match=f"{name}x\n"):
        strict(text)


def test_task_hooks_can_be_called_by_keyword_too():
    import inspect

    from flows._reports.hooks import task_hooks

    for hooks in task_hooks().values():
        for hook in hooks:
            assert list(inspect.signature(hook).parameters) == ["task", "task_run", "state"]
