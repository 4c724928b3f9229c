"""The run sheet says where a run's time went, what it started, and who was told what."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, Failed

from blocks._command import Command
from flows import flow_hooks, guard, job_task
from flows._reports.sheet import ABOUT, ROWS, WIDTH, _covered, _gantt
from flows._run.guard import current
from flows._run.run_command import run_command, scratch

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ran(name: str, begin: float, end: float, **more: Any) -> TaskRun:
    return TaskRun(
        id=uuid4(),
        name=name,
        flow_run_id=uuid4(),
        task_key=name,
        dynamic_key="0",
        start_time=BEGAN + timedelta(seconds=begin),
        end_time=BEGAN + timedelta(seconds=end),
        **{"state": Completed(), **more},
    )


def sheets(api: Any, run_id: str) -> list[str]:
    found = api.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run_id)]))
    )
    return [one.data for one in found if one.description == ABOUT]


def test_each_task_has_a_bar_where_and_as_long_as_it_ran():
    _, first, second, _ = _gantt([ran("one", 0, 10), ran("two", 10, 20)])
    assert first.startswith("one")
    assert first.count("█") == second.count("█") == WIDTH // 2
    assert first.index("█") + WIDTH // 2 == pytest.approx(second.index("█"), abs=1)
    assert first.endswith("10.0 s")


def test_a_task_that_did_not_end_well_is_marked():
    assert _gantt([ran("one", 0, 1, state=Failed())])[1].endswith("Failed")


def test_of_many_tasks_the_longest_are_drawn_in_their_order():
    tasks = [ran(f"t{n}", n, n + (n % 7) + 1) for n in range(ROWS + 20)]
    _, *bars, _, said = _gantt(tasks)
    names = [bar.split()[0] for bar in bars]
    assert len(names) == ROWS
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert said == f"The {ROWS} longest of {ROWS + 20} tasks."


def test_a_run_without_tasks_says_so():
    assert _gantt([]) == ["No task was started."]


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(0, 2), (5, 6)], 3),
        ([(0, 4), (1, 2), (3, 6)], 6),
    ],
)
def test_time_in_which_several_tasks_ran_counts_once(spans, seconds):
    assert _covered(spans) == seconds


def test_a_run_that_ended_has_one_sheet_with_its_tasks_programs_and_listeners(
    api, installation, eventually
):
    @job_task
    def start_something():
        with scratch() as folder:
            run_command(Command(["true"]), folder=folder, name="a program")

    @flow(**flow_hooks())
    @guard
    def shown():
        start_something()
        return current().id

    run_id = shown()
    all_told = "| `report-endpoint/listener` | 5 | 0 | 0 |"
    text = eventually(
        lambda: next((sheet for sheet in sheets(api, run_id) if all_told in sheet), None),
        seconds=60,
    )
    assert ": Completed at " in text.splitlines()[0]
    assert "start_something" in text
    assert "| `true` | process on " in text
    assert len(sheets(api, run_id)) == 1
