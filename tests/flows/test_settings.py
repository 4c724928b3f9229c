"""A block edited in the UI applies to the next run, and to a retry; never to a run under way."""

import pytest
from prefect import flow
from prefect.states import Scheduled

from blocks import CwlConfig, NotebookConfig
from blocks.errors import BlockMissing
from flows import flow_hooks, guard, job_task
from flows._run.guard import current
from flows.demo import demo


@job_task
def look() -> int | None:
    return current().settings.get(CwlConfig, "edited").parallel


@flow(**flow_hooks())
@guard(parts=2)
def looks_twice() -> list[int | None]:
    first = look()
    CwlConfig(parallel=(first or 0) + 1).save("edited", overwrite=True)
    return [first, look()]


def test_an_edited_block_applies_to_the_next_run_and_not_to_the_running_one(api):
    CwlConfig(parallel=1).save("edited", overwrite=True)
    assert looks_twice() == [1, 1]
    assert looks_twice() == [2, 2]


@pytest.mark.alone(reason="no program of any run may be recorded meanwhile")
def test_a_composite_names_a_missing_block_before_it_starts_anything(installation, api):
    before = {path.name for path in (installation.home / "runs").glob("*/*/record.json")}
    with pytest.raises(BlockMissing, match="no CwlConfig block is called 'nope'"):
        demo(cwl="nope")
    assert {path.name for path in (installation.home / "runs").glob("*/*/record.json")} == before


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_retry_in_the_ui_goes_on_from_the_task_that_failed(installation, api, eventually):
    NotebookConfig(kernel="no-such-kernel").save("mended", overwrite=True)
    deployment = next(d for d in api.read_deployments() if d.name == "demo")
    run = api.create_flow_run_from_deployment(deployment.id, parameters={"notebook": "mended"})

    def state():
        return api.read_flow_run(run.id).state

    eventually(lambda: state().is_failed(), seconds=150)
    done = installation.words(run.id)
    assert ("submit_spark", "success") in done
    assert ("run_notebook", "failed") in done

    NotebookConfig().save("mended", overwrite=True)
    api.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)  # the UI's Retry
    eventually(lambda: state().is_completed(), seconds=150)
    eventually(lambda: installation.told(run.id, "results"))
    again = installation.words(run.id)[len(done) :]
    assert ("run_notebook", "success") in again
    spark = list((installation.home / "runs" / str(run.id)).glob("submit_spark-*"))
    assert len(spark) == 1  # one program in two attempts of the run
    progress = [m["state"] for m in installation.told(run.id, "progress")]
    assert "failed" in progress
    assert progress[-1] == "success"
