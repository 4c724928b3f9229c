"""People hear of a real run, in Slack and by mail, what their blocks say and nothing else."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message as Mail
from email.policy import default
from typing import Any
from uuid import uuid4

import pytest
from aiosmtpd.controller import Controller
from prefect import flow, tags

from blocks import MailChannel, SlackChannel
from deployments.fakes.slack import TOKEN, Slack, create_app
from flows import flow_hooks, guard, job_task
from flows._run.guard import current
from tests.serving import serving


@dataclass
class Mailbox:
    """Whom mails came for, and the mails."""

    mails: list[tuple[list[str], Mail]] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=default)))
        return "250 OK"


@job_task(retries=1)
def falters(tried: list[int]) -> None:
    tried.append(1)
    if len(tried) == 1:
        raise ValueError("not yet")


@job_task
def broken(good: bool) -> str:
    if not good:
        raise ValueError("no fuel")
    return current().id


@flow(**flow_hooks())
@guard
def journey(good: bool):
    falters([])
    return broken(good)


@pytest.fixture
def name(api) -> Iterator[str]:
    """A tag, and the name of the blocks that hear the runs with it."""
    mine = f"people-{uuid4().hex[:8]}"
    yield mine
    for document in api.read_block_documents():
        if document.name == mine:
            api.delete_block_document(document.id)


@pytest.fixture
def mailbox(name) -> Iterator[Mailbox]:
    """A mail server, and a channel that hears of failures and repeated tasks."""
    box = Mailbox()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    MailChannel(
        host="127.0.0.1",
        port=port,
        security="none",
        sender="Penstock <penstock@example.org>",
        recipients=["ops@example.org"],
        hears=["failure", "retry"],
        match_tags=[name],
    ).save(name)
    yield box
    server.stop()


@pytest.fixture
def slack(name) -> Iterator[Slack]:
    """A workspace, and a channel that hears of failures."""
    workspace = Slack(channels=("#runs",))
    with serving(create_app(workspace)) as url:
        SlackChannel(
            token=TOKEN, channel="#runs", api_url=f"{url}/api", hears=["failure"], match_tags=[name]
        ).save(name)
        yield workspace


def test_people_hear_of_a_run_that_fails_what_they_have_chosen(
    installation, api, name, slack, mailbox, eventually
):
    with tags(name):
        fine = journey(True)
        failed = journey(False, return_state=True)
    run = str(failed.state_details.flow_run_id)
    eventually(lambda: slack.posts and len(mailbox.mails) == 3, seconds=60)

    (note,) = slack.posts
    assert note["channel"] == "#runs"
    said = str(note["blocks"])
    assert "journey failed in broken" in said
    assert "no fuel" in said
    assert run in said
    assert fine not in said

    assert {tuple(whom) for whom, _ in mailbox.mails} == {("ops@example.org",)}
    subjects = [(mail["Subject"], fine in mail.get_content()) for _, mail in mailbox.mails]
    assert subjects == [
        ("journey will try falters again", True),
        ("journey will try falters again", False),
        ("journey failed in broken", False),
    ]
    last = mailbox.mails[-1][1]
    assert run in last.get_content()
    assert "no fuel" in last.get_content()
    # What both hear of the run is on the run, as for every endpoint.
    eventually(
        lambda: (
            {
                f"penstock.told.slack-channel/{name}",
                f"penstock.told.mail-channel/{name}",
            }
            <= api.read_flow_run(failed.state_details.flow_run_id).labels.keys()
        ),
        seconds=60,
    )
    assert len(slack.posts) == 1
    assert len(mailbox.mails) == 3
