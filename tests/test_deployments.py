"""Every entry of prefect.yaml loads as a worker loads it: in a fresh process, without our help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel

ROOT = Path(__file__).parent.parent
ENTRIES = {
    entry["name"]: entry
    for entry in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
}

LOAD = """
import json, sys
from prefect.flows import load_flow_from_entrypoint
flow = load_flow_from_entrypoint(sys.argv[1], use_placeholder_flow=False)
print(json.dumps({
    "name": flow.name,
    "hooks": {
        moment: [hook.__name__ for hook in getattr(flow, moment + "_hooks")]
        for moment in ("on_completion", "on_failure", "on_cancellation", "on_crashed")
    },
    "guarded": hasattr(flow.fn, "__wrapped__"),
    "persists": flow.persist_result,
}))
"""


def file_form(entrypoint: str) -> str:
    module, _, function = entrypoint.rpartition(".")
    return f"{module.replace('.', '/')}.py:{function}"


@pytest.mark.parametrize("form", [str, file_form], ids=["module form", "file form"])
@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_loads_in_a_fresh_process_with_hooks_and_guard(name, form):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, form(ENTRIES[name]["entrypoint"])],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    moments = ("on_completion", "on_failure", "on_cancellation", "on_crashed")
    assert loaded["hooks"] == {moment: ["report_run"] for moment in moments}
    assert loaded["guarded"]
    assert loaded["persists"]


def test_prefect_yaml_has_no_key_that_prefect_would_ignore():
    text = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    text.pop("definitions")  # ours: anchors
    known = {field.alias or name for name, field in PrefectYamlModel.model_fields.items()}
    assert set(text) <= known
    entry = PrefectYamlModel.model_fields["deployments"].annotation.__args__[0]
    for name, values in ENTRIES.items():
        assert set(values) <= set(entry.model_fields), name
        pool = entry.model_validate(values).work_pool
        assert set(values["work_pool"]) <= set(type(pool).model_fields), name


def test_hooks_can_be_called_by_keyword_as_the_runner_does():
    import inspect

    from flows._reports.hooks import report_run, report_task

    assert list(inspect.signature(report_run).parameters) == ["flow", "flow_run", "state"]
    assert list(inspect.signature(report_task).parameters) == ["task", "task_run", "state"]
