"""Cancelled, terminated or killed through a real worker: nothing of any kind of job is left."""

import signal
import sys
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from prefect.states import AwaitingRetry, Cancelling

from tests.conftest import LISTENER

PROGRAMS = Path(__file__).parent.parent / "programs"


def spark(tmp_path):
    return {"app": str(PROGRAMS / "sleepy_spark.py")}, ("java", "pyspark.daemon")


def notebook(tmp_path):
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"!{sys.executable} {PROGRAMS / 'tree.py'}")],
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
    )
    nbformat.write(nb, tmp_path / "long.ipynb")
    return {"notebook": str(tmp_path / "long.ipynb")}, ("ipykernel", "time.sleep(900)")


def cwl(tmp_path):
    (tmp_path / "long.cwl").write_text(
        "{cwlVersion: v1.2, class: CommandLineTool, inputs: [], outputs: [], "
        f"baseCommand: [python3, {PROGRAMS / 'tree.py'}]}}"
    )
    return {"workflow": str(tmp_path / "long.cwl")}, ("tree.py", "time.sleep(900)")


def family(mark: str) -> dict[int, str]:
    """The commands of all processes with the run's mark, and of everything below them."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("PENSTOCK_RUN") == mark:
                for member in (process, *process.children(recursive=True)):
                    found[member.pid] = " ".join(member.cmdline())
        except psutil.Error:
            continue
    return found


@pytest.fixture
def working(installation, api, eventually, tmp_path):
    """Starts a run of a kind by its deployment; returns it when all its programs are there."""

    def start(kind):
        parameters, expected = kind(tmp_path)
        deployment = next(d for d in api.read_deployments() if d.name == kind.__name__)
        run = api.create_flow_run_from_deployment(deployment.id, parameters=parameters)

        def complete():
            programs = family(str(run.id))
            return programs if all(any(e in c for c in programs.values()) for e in expected) else {}

        return run, set(eventually(complete, seconds=90))

    return start


def alive(programs):
    left = {}
    for pid in programs:
        with suppress(psutil.NoSuchProcess):  # gone, or a zombie (psutil's is a kind of the first)
            left[pid] = psutil.Process(pid).cmdline()
    return left


def engine(run_id: str) -> psutil.Process:
    return next(
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if "prefect.engine" in (process.info["cmdline"] or [])
        and (process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") == run_id
    )


@pytest.mark.parametrize(
    "kind", [cwl, *(pytest.param(kind, marks=pytest.mark.full) for kind in (spark, notebook))]
)
def test_a_run_cancelled_in_the_ui_leaves_nothing(installation, api, eventually, working, kind):
    run, programs = working(kind)
    api.set_flow_run_state(run.id, Cancelling())
    eventually(lambda: not alive(programs), seconds=10)
    eventually(lambda: not family(str(run.id)), seconds=10)
    eventually(lambda: api.read_flow_run(run.id).state.is_cancelled(), seconds=30)  # noqa: PLW0108 - read anew
    # The hook runs in a process of its own, after the run has ended.
    (end,) = eventually(
        lambda: [h.payload for h in installation.heard(str(run.id)) if h.route == "progress"]
    )
    assert end["state"] == "failed"
    assert end["progress"] < 100
    said = [h.payload["state"] for h in installation.heard(str(run.id)) if h.route == "status"]
    assert said == ["running", "failed"]


@pytest.mark.full
def test_a_run_that_is_cancelled_retried_and_cancelled_again_tells_both_ends(
    installation, api, eventually, working
):
    run, programs = working(cwl)
    for times in (1, 2):
        api.set_flow_run_state(run.id, Cancelling())
        eventually(lambda: api.read_flow_run(run.id).state.is_cancelled(), seconds=30)  # noqa: PLW0108 - read anew
        eventually(lambda before=programs: not alive(before), seconds=10)
        if times == 1:
            api.set_flow_run_state(run.id, AwaitingRetry())  # as Retry in the UI does
            programs = eventually(lambda: family(str(run.id)), seconds=90)
    ends = eventually(lambda: (e := installation.told(run.id, "progress")) and len(e) == 2 and e)
    assert [end["state"] for end in ends] == ["failed", "failed"]
    told = f"told {run.id}.2.cancelled/progress"
    eventually(lambda: api.read_flow_run(run.id).labels.get(f"penstock.told.{LISTENER}") == told)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, marks=pytest.mark.full), signal.SIGKILL],
    ids=["SIGTERM", "SIGKILL"],
)
def test_an_engine_that_dies_takes_its_programs_along(api, eventually, working, number):
    run, programs = working(cwl)
    engine(str(run.id)).send_signal(number)
    eventually(lambda: not alive(programs), seconds=10)
    eventually(lambda: api.read_flow_run(run.id).state.is_crashed(), seconds=30)  # noqa: PLW0108 - read anew
