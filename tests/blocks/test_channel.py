"""Which messages a channel tells, and what people read of them."""

from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from blocks import MailChannel, SlackChannel
from blocks._changes import Change
from blocks._channel import ERROR, LINE, LINES, kind, lasting_id, link, note
from blocks._messages import Failure, Message, Names, messages

ROOT, CHILD = "0a6f0000-0000-0000-0000-000000000001", "0a6f0000-0000-0000-0000-000000000002"
NAMES = Names("flights", "run-7", root=ROOT, deployment="nightly", flow="fly", by="ada")
AT = "2026-01-02T03:04:05+00:00"


def change(kind: str, name: str, task: str | None = None, run: str = ROOT, **more: Any) -> Change:
    ids: dict[str, Any] = {"task": task, "task_run": f"{task}-id"} if task else {}
    return Change(run, "state-id", kind, name, AT, **ids, **more)


EVENTS = {
    "run succeeded": (change("COMPLETED", "Completed"), "success"),
    "run failed": (change("FAILED", "Failed"), "failure"),
    "run crashed": (change("CRASHED", "Crashed"), "failure"),
    "run cancelled": (change("CANCELLED", "Cancelled"), "failure"),
    "run late": (change("SCHEDULED", "Late"), "late"),
    "task waits to be tried again": (change("SCHEDULED", "AwaitingRetry", "count"), "retry"),
    "task tried again": (change("RUNNING", "Retrying", "count", attempt=2), "retry"),
    "run started": (change("RUNNING", "Running"), None),
    "task started": (change("RUNNING", "Running", "count"), None),
    "task succeeded": (change("COMPLETED", "Completed", "count", progress=40), None),
    "task failed": (change("FAILED", "Failed", "count"), None),
    "child run failed": (change("FAILED", "Failed", run=CHILD), None),
    "child run succeeded": (change("COMPLETED", "Completed", run=CHILD), None),
}
FAILED = Message(
    "state-id/progress",
    "progress",
    "failed",
    NAMES,
    run=ROOT,
    at=AT,
    error="no fuel",
    failure=Failure("count", ("first", "last")),
)


@pytest.mark.parametrize("event", EVENTS)
def test_each_event_is_of_the_kind_that_people_would_say(event):
    told, expected = EVENTS[event]
    kinds = {kind(message) for message in messages(told, NAMES)} - {None}
    assert kinds == ({expected} if expected else set())


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("hears", [[], ["success"], ["failure"], ["retry", "late"]], ids=str)
def test_a_channel_wants_what_was_chosen_and_nothing_else(event, hears):
    slack = SlackChannel(webhook="http://here/x", hears=hears)
    told, expected = EVENTS[event]
    wanted = [m for m in messages(told, NAMES) if slack.wants(m)]
    assert len(wanted) == (expected in hears)


def test_slack_hears_of_ends_and_mail_of_trouble_when_nothing_is_chosen():
    slack = SlackChannel(webhook="http://here/x")
    mail = MailChannel(host="here", sender="a@here", recipients=["b@here"])
    assert (slack.hears, mail.hears) == (
        ["success", "failure", "late"],
        ["failure", "retry", "late"],
    )


@pytest.mark.parametrize("block", [SlackChannel, MailChannel])
def test_the_form_offers_the_kinds_to_choose_from(block):
    field = block.model_json_schema()["properties"]["hears"]
    assert field["items"]["enum"] == ["success", "failure", "retry", "late"]
    assert field["default"] == block.model_fields["hears"].default


def test_a_channel_chooses_runs_as_an_endpoint_does():
    slack = SlackChannel(webhook="http://here/x", match_tags=["slack"])
    assert slack.matches("nightly", "fly", ["slack", "eu"])
    assert not slack.matches("nightly", "fly", ["eu"])


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        ("run succeeded", "flights succeeded"),
        ("run failed", "flights failed"),
        ("run late", "flights is late"),
        ("task waits to be tried again", "flights will try count again"),
        ("task tried again", "flights will try count again"),
    ],
)
def test_the_subject_says_what_happened(event, subject):
    told, _ = EVENTS[event]
    [message] = [m for m in messages(told, NAMES) if kind(m)]
    assert note(message, None).subject == subject


def test_a_note_of_a_failure_holds_what_helps_to_mend_it():
    made = note(FAILED, "http://ui/runs/flow-run/1")
    assert made.subject == "flights failed in count"
    assert made.text == (
        "Deployment: nightly\nFlow: fly\nRun: run-7\nState: failed\nTask: count\nStarted by: ada\n"
        f"At: {AT}\n\nno fuel\n\nThe last log lines:\nfirst\nlast\n\nhttp://ui/runs/flow-run/1\n"
    )


def test_what_is_long_is_cut_and_the_last_lines_stay():
    log = tuple(f"{number} {'x' * 500}" for number in range(50))
    message = Message(
        "id", "progress", "failed", NAMES, error="e" * 9999, failure=Failure("t", log)
    )
    made = note(message, None)
    assert len(made.error) == ERROR
    assert made.error.endswith("e…")
    assert [line.split()[0] for line in made.log] == [str(n) for n in range(50 - LINES, 50)]
    assert {len(line) for line in made.log} == {LINE}


def test_no_name_breaks_a_line_and_no_control_character_stays():
    names = Names("a\r\nBcc: x@y", "r\n\x1b[31m", root=ROOT, flow="f\x00\udc80")
    message = Message("id", "progress", "failed", names, error="one\x1b[0m\r\ntwo\u2028three")
    made = note(message, None)
    assert made.subject == "a Bcc: x@y failed"
    assert dict(made.facts)["Run"] == "r [31m"
    assert made.error.split("\n") == ["one [0m", "two", "three"]
    assert made.text.replace("\n", "").isprintable()


def test_the_link_follows_the_settings_of_the_moment():
    with temporary_settings({PREFECT_UI_URL: "https://ui.example", PREFECT_API_URL: None}):
        assert link(FAILED) == f"https://ui.example/runs/flow-run/{ROOT}"
    with temporary_settings({PREFECT_API_URL: "http://api.example:4200/api"}):
        assert link(FAILED) == f"http://api.example:4200/runs/flow-run/{ROOT}"


def test_without_a_known_ui_there_is_no_link():
    with temporary_settings(restore_defaults={PREFECT_UI_URL, PREFECT_API_URL}):
        assert link(FAILED) is None


def test_a_lasting_id_depends_on_all_its_parts_and_nothing_else():
    assert lasting_id("a", "b") == lasting_id("a", "b")
    assert len({lasting_id("a", "b"), lasting_id("a"), lasting_id("b", "a")}) == 3
