"""The format v1: one envelope for every message, with a schema that anyone can check against."""

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from blocks._changes import Change
from blocks._envelope import Envelope, envelope, refer
from blocks._messages import Failure, Message, Names, messages
from tests import schema

AT = "2026-11-21T09:30:00.5+00:00"
NAMES = Names("flights", "run-7", "7f", "nightly", "flight", "ann")
OF_TASK: dict[str, Any] = {"task": "count", "task_run": "t1", "attempt": 2}


def told(kind: str, name: str = "", run: str = "7f", **more: Any) -> list[Message]:
    change = Change(run, "s1", kind, name, AT, message="no fuel", **more)
    why = Failure("count", ("a line",)) if kind == "FAILED" and not more else None
    return messages(change, NAMES, results={"naïve": [1, None]}, location="/kept", failure=why)


EVERY = [
    *told("RUNNING", **OF_TASK),
    *told("COMPLETED", **OF_TASK, progress=40),
    *told("FAILED", **OF_TASK),
    *told("SCHEDULED", "AwaitingRetry", **OF_TASK),
    *told("PENDING", "NotReady", **OF_TASK),
    *told("COMPLETED"),
    *told("FAILED"),
    *told("COMPLETED", run="9c"),
    *told("SCHEDULED", "Late"),
]


def test_the_documented_schema_is_the_models():
    assert schema.written() == schema.made(), f"docs/events.md is behind: {schema.COMMAND}"


def test_there_is_one_of_every_type_and_state_below():
    properties = Envelope.model_json_schema()["properties"]
    assert {m.route for m in EVERY} == set(properties["type"]["enum"])
    assert {m.state for m in EVERY} == set(properties["state"]["enum"])


@pytest.mark.parametrize("most", [0, 1 << 20], ids=["too large", "whole"])
@pytest.mark.parametrize("message", EVERY, ids=lambda m: f"{m.route} {m.state}")
def test_every_message_fits_the_documented_schema_and_has_all_its_fields(message, most):
    documented = json.loads((schema.written() or "").removeprefix("```json").rstrip("`\n"))
    made = envelope(message, max_result=most)
    jsonschema.validate(json.loads(json.dumps(made)), documented)
    assert list(made) == list(documented["properties"])
    assert Envelope.model_validate_json(json.dumps(made)).model_dump(mode="json") == made


def test_an_envelope_says_all_that_is_known():
    [failed] = told("FAILED")
    assert envelope(failed, max_result=99) == {
        "id": "s1/progress",
        "type": "progress",
        "seq": 1795253400500000,
        "at": "2026-11-21T09:30:00.500000Z",
        "by": "ann",
        "dag_id": "flights",
        "run_id": "run-7",
        "run": "7f",
        "parent": None,
        "deployment": "nightly",
        "flow": "flight",
        "task": None,
        "state": "failed",
        "attempt": 1,
        "progress": 0,
        "error": {"message": "no fuel", "task": "count", "log": ["a line"]},
        "result": None,
        "reference": None,
    }


def test_a_task_is_named_with_its_attempt_and_a_failure_without_a_log_names_its_task():
    [failed] = told("FAILED", **OF_TASK)
    made = envelope(failed, max_result=99)
    assert made["task"] == {"id": "count", "run": "t1"}
    assert made["attempt"] == 2
    assert made["error"] == {"message": "no fuel", "task": "count", "log": []}


def test_a_child_names_its_parent_and_keeps_the_roots_names():
    [child] = told("COMPLETED", run="9c")
    made = envelope(child, max_result=99)
    assert (made["run"], made["parent"], made["run_id"]) == ("9c", "7f", "run-7")


def test_a_result_is_whole_up_to_its_limit_and_named_with_its_checksum_above():
    results = told("COMPLETED")[1]
    text = '{"naïve": [1, null]}'.encode()
    whole = envelope(results, max_result=len(text))
    assert (whole["result"], whole["reference"]) == ({"naïve": [1, None]}, None)
    named = envelope(results, max_result=len(text) - 1)
    assert named["result"] is None
    assert named["reference"] == {
        "location": "/kept",
        "sha256": sha256(text).hexdigest(),
        "size": len(text),
    }


def test_what_is_no_result_is_never_too_large():
    assert refer(told("FAILED")[0], 0) is None
    assert refer(replace(told("COMPLETED")[1], results=None), 0) is None


def test_an_envelope_has_no_field_that_the_schema_does_not_know():
    with pytest.raises(ValidationError):
        Envelope.model_validate({**envelope(EVERY[0], max_result=9), "more": 1})
