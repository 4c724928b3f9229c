"""The newer format, from a real run to who verifies it: a child's end is an event, too."""

import json
from dataclasses import replace

import pytest
from prefect import flow, tags

from blocks._keys import KeySet
from deployments.listener.check import Check
from deployments.listener.check import Post as Came
from flows import flow_hooks, guard, job_task
from flows._run.guard import current
from tests.receiver import Post

TERMINAL = {"success", "failed"}


@job_task
def works(good: bool = True) -> str:
    if not good:
        raise ValueError("no fuel")
    return current().id


@flow(**flow_hooks())
@guard
def child(good: bool = True):
    return works(good)


@flow(**flow_hooks())
@guard(parts=2)
def parent():
    works()
    child(False, return_state=True)
    return {"root": current().id, "child": child()}


@pytest.fixture
def told(ear, api):
    """What the endpoint heard of one run of `parent`, and how its root stood at each word."""
    stood: dict[str, bool] = {}

    def answer(post: Post) -> int:
        fields = json.loads(post.body)
        stood[post.id] = api.read_flow_run(fields["run_id"]).state.is_final()
        return 204

    ear.save(format="v1")
    ear.receiver.answer = answer
    with tags(ear.name):
        made = parent()
    ear.receiver.wait(
        lambda: any(b'"results"' in post.body for post in ear.receiver.posts), seconds=90
    )
    return made, [json.loads(post.body) for post in ear.receiver.posts], stood


def test_a_run_with_child_runs_is_told_to_its_end_and_who_listens_can_verify_it(
    ear, told, installation
):
    made, events, stood = told
    check = Check(KeySet(text=ear.public), audience=ear.receiver.url)
    came = [Came(post.path, post.headers, post.body) for post in ear.receiver.posts]
    heard = [check(post) for post in came]
    assert [one.why for one in heard if not one.verified] == []
    assert {(one.format, one.route) for one in heard} == {("v1", "events")}
    assert [one.payload for one in heard] == events
    forged = replace(came[-1], body=came[-1].body.replace(made["child"].encode(), b"0" * 36))
    assert "the body is not the one that was signed" in check(forged).why

    assert {event["run_id"] for event in events} == {made["root"]}
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(seqs)
    assert seqs[-1] > max(event["seq"] for event in events if event["type"] == "status")
    assert len({event["id"] for event in events}) == len(events)

    ends = [event for event in events if event["type"] == "child"]
    assert [(end["state"], end["parent"], end["task"]) for end in ends] == [
        ("failed", made["root"], None),
        ("success", made["root"], None),
    ]
    assert ends[1]["run"] == made["child"]
    assert "no fuel" in ends[0]["error"]["message"]
    assert ends[0]["error"]["task"] == "works"
    of_children = {event["run"]: event["parent"] for event in events if event["parent"]}
    assert set(of_children.values()) == {made["root"]}
    assert len(of_children) == 2

    of_root = [event for event in events if event["type"] in ("progress", "results")]
    assert all((event["run"], event["parent"]) == (made["root"], None) for event in of_root)
    steps = [event["progress"] for event in of_root if event["type"] == "progress"]
    assert steps == sorted(steps)
    assert [event["type"] for event in events[-2:]] == ["progress", "results"]
    assert (events[-2]["state"], events[-2]["progress"]) == ("success", 100)
    assert events[-1]["result"] == made
    final = {event["id"] for event in of_root if event["state"] in TERMINAL}
    assert {key: stood[key] for key in final} == dict.fromkeys(final, True)

    # And beside it, at the same time, the format of older listeners, which knows no child's end.
    older = installation.heard(made["root"])
    assert {one.format for one in older} == {"seed"}
    assert {one.id for one in older} == {e["id"] for e in events if e["type"] != "child"}
