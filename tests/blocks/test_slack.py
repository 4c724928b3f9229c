"""Notes that a Slack workspace takes, once each, or that are said not to have been taken."""

import logging
import os
import re
import socket
import threading
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from blocks import SlackChannel
from blocks._messages import Failure, Message, Names
from blocks.errors import ConfigError, KeyUnusable, NotDelivered
from blocks.slack import _client
from deployments.fakes.slack import TOKEN, WEBHOOK, Slack, create_app
from tests.serving import serving

NAMES = Names("flights", "run-7", root="0a6f0000-0000-0000-0000-000000000001", flow="fly")
MESSAGE = Message(
    "abc/progress",
    "progress",
    "failed",
    NAMES,
    error="<!channel> & `no` fuel",
    failure=Failure("count", ("last line",)),
)


@dataclass
class Workspace:
    """The fake workspace behind a real socket."""

    slack: Slack
    url: str

    def by_token(self, **more: Any) -> SlackChannel:
        settings = {"token": TOKEN, "channel": "#runs", "api_url": f"{self.url}/api", **more}
        return SlackChannel(**settings)

    def by_webhook(self, path: str = WEBHOOK) -> SlackChannel:
        return SlackChannel(webhook=self.url + path)

    def answers_next(self, **told: Any) -> None:
        assert httpx.post(f"{self.url}/fake/next", params=told).is_success


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    slack = Slack(channels=("#runs", "#other"))
    with serving(create_app(slack)) as url:
        yield Workspace(slack, url)


@dataclass
class Odd:
    """An HTTP server that is no Slack: what it answers, and what came to it."""

    url: str = ""
    status: int | None = 200  # None: hang up without a word
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()
    pause: float | None = None  # between two bodies, without end


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Odd]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    mine = Odd()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            mine.paths += (self.path,)
            if mine.status is not None:
                self.send_response(mine.status)
                for name, value in mine.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(mine.body)
                with suppress(ConnectionError):  # nobody reads it any more
                    while mine.pause is not None:
                        time.sleep(mine.pause)  # it is the server that is slow
                        self.wfile.write(mine.body)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        mine.url = f"http://127.0.0.1:{server.server_port}"
        yield mine
        server.shutdown()
        thread.join()


def not_delivered(channel: SlackChannel, message: Message = MESSAGE) -> NotDelivered:
    """What `channel` raises, sure to show neither its secrets nor an address."""
    with pytest.raises(NotDelivered) as caught:
        channel.send(message)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    secrets = [s.get_secret_value() for s in (channel.token, channel.webhook) if s]
    assert [text for text in (*secrets, "/services/", "http://") if text in shown] == []
    return caught.value


def test_a_note_comes_to_the_channel_with_all_that_helps(workspace):
    workspace.by_token().send(MESSAGE)
    [post] = workspace.slack.posts
    assert post["channel"] == "#runs"
    assert post["text"] == "flights failed in count"
    page = httpx.get(workspace.url).text
    for words in ("flights failed in count", "run-7", "&lt;!channel&gt; &amp; `no` fuel", "last"):
        assert words in page


def test_what_stands_in_a_message_is_never_markup(workspace):
    names = replace(NAMES, dag_id="<!channel> *&*")
    workspace.by_token().send(replace(MESSAGE, names=names))
    [post] = workspace.slack.posts
    assert post["text"] == "&lt;!channel&gt; *&amp;* failed in count"
    [block] = post["blocks"]
    elements = [element for part in block["elements"] for element in part["elements"]]
    assert {element["type"] for element in elements} <= {"text", "link"}


def test_a_repeat_is_posted_once_and_another_message_too(workspace):
    slack = workspace.by_token()
    slack.send(MESSAGE)
    slack.send(MESSAGE, attempt=2)
    workspace.by_token().send(MESSAGE, attempt=3)  # another process, say
    slack.send(replace(MESSAGE, id="def/progress"))
    ids = [post["metadata"]["event_payload"]["id"] for post in workspace.slack.posts]
    assert ids == ["abc/progress", "def/progress"]


def test_one_message_reaches_each_of_two_channels(workspace):
    for channel in ("#runs", "#other"):
        workspace.by_token(channel=channel).send(MESSAGE)
    assert [post["channel"] for post in workspace.slack.posts] == ["#runs", "#other"]
    assert len({post["client_msg_id"] for post in workspace.slack.posts}) == 2


def test_a_webhook_is_posted_to(workspace):
    workspace.by_webhook().send(MESSAGE)
    [post] = workspace.slack.posts
    assert post["text"] == "flights failed in count"
    assert "client_msg_id" not in post


def test_token_and_channel_count_before_a_webhook(workspace):
    workspace.by_token(webhook=workspace.url + WEBHOOK).send(MESSAGE)
    assert [post["channel"] for post in workspace.slack.posts] == ["#runs"]


@pytest.mark.parametrize("way", ["by_token", "by_webhook"])
def test_the_time_that_slack_asks_for_is_told_and_then_it_takes_the_note(way, workspace):
    slack = getattr(workspace, way)()
    workspace.answers_next(status=429, retry_after=7)
    error = not_delivered(slack)
    assert (error.status, error.retry_after, error.final) == (429, 7.0, False)
    slack.send(MESSAGE, attempt=2)
    assert len(workspace.slack.posts) == 1


@pytest.mark.parametrize("word", ["ratelimited", "rate_limited"])
def test_a_limit_that_comes_with_200_is_one_too(word, workspace):
    workspace.answers_next(error=word, retry_after=3)
    error = not_delivered(workspace.by_token())
    assert (error.retry_after, error.final) == (3.0, False)
    assert "has to wait" in str(error)


@pytest.mark.parametrize("header", ["soon", "-1", "nan", "inf", ""])
def test_a_time_that_is_none_is_left_to_the_sender(header, odd):
    odd.status, odd.headers = 429, (("retry-after", header),)
    error = not_delivered(SlackChannel(token="xoxb-1", channel="#runs", api_url=odd.url))
    assert (error.status, error.retry_after) == (429, None)


def test_a_wrong_token_is_said_with_what_mends_it(workspace):
    error = not_delivered(workspace.by_token(token="xoxb-of-another-app"))
    assert "invalid_auth; put the token" in str(error)
    assert not error.final


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("not_in_channel", "invite the app"),
        ("account_inactive", "token"),
        ("missing_scope", "chat:write"),
        ("is_archived", "not archived"),
        ("something_new", "something_new"),
    ],
)
def test_what_somebody_can_mend_is_not_final(word, fix, workspace):
    workspace.answers_next(error=word)
    error = not_delivered(workspace.by_token())
    assert fix in str(error)
    assert not error.final


def test_a_channel_that_is_not_there_is_said(workspace):
    error = not_delivered(workspace.by_token(channel="#nowhere"))
    assert "channel_not_found; name a channel that exists" in str(error)
    assert not error.final


def test_a_webhook_that_was_removed_is_said_with_what_mends_it(workspace):
    error = not_delivered(workspace.by_webhook("/services/T0/B0/gone"))
    assert "no_service; make a new webhook" in str(error)
    assert (error.status, error.final) == (404, False)


@pytest.mark.parametrize("word", ["msg_too_long", "invalid_blocks"])
def test_what_no_attempt_can_change_is_final(word, workspace):
    workspace.answers_next(error=word)
    assert not_delivered(workspace.by_token()).final


def test_a_webhook_that_takes_no_such_document_is_final(odd):
    odd.status, odd.body = 400, b"invalid_payload"
    assert not_delivered(SlackChannel(webhook=f"{odd.url}/services/x")).final


def channels(odd: Odd) -> list[SlackChannel]:
    token = SlackChannel(token="xoxb-hunter2", channel="#runs", api_url=odd.url, timeout=5)
    return [token, SlackChannel(webhook=f"{odd.url}/services/hunter2")]


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"<html>", b"[]", b'"ok"', b'{"ok": "yes"}', b"[" * 100_000, b"{}", b"nul"],
    ids=lambda body: repr(body[:12]),
)
def test_an_answer_that_is_not_slacks_is_not_taken_for_one(body, odd):
    odd.body = body
    for slack in channels(odd):
        assert not not_delivered(slack).final


def test_an_error_that_repeats_a_secret_is_not_shown(odd):
    for slack, body in zip(channels(odd), (b'{"error": "xoxb-hunter2"}', b"hunter2!"), strict=True):
        odd.body = body
        assert "hunter2" not in str(not_delivered(slack))


@pytest.mark.parametrize("status", [301, 307, 404, 500, 503])
def test_another_status_is_told_and_no_redirect_is_followed(status, odd):
    odd.status, odd.headers = status, (("location", f"{odd.url}/elsewhere"),)
    for slack in channels(odd):
        assert not_delivered(slack).status == status
    assert odd.paths == ("/chat.postMessage", "/services/hunter2")


def test_a_server_that_hangs_up_has_not_taken_the_note(odd):
    odd.status = None
    for slack in channels(odd):
        assert "no answer from Slack" in str(not_delivered(slack))


@pytest.mark.parametrize(
    ("body", "pause", "said"), [(b"x" * 9999, 0.0, "not Slack's"), (b"x", 0.1, "ReadTimeout")]
)
def test_of_an_answer_without_end_a_beginning_is_read(odd, body, pause, said):
    odd.body, odd.pause = body, pause
    began = time.monotonic()
    refused = not_delivered(SlackChannel(webhook=f"{odd.url}/services/T0/B0/x", timeout=1))
    assert said in str(refused)
    assert not refused.final
    assert time.monotonic() - began < 10


def test_a_server_that_is_down_has_not_taken_the_note():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        nobody = Odd(f"http://127.0.0.1:{taken.getsockname()[1]}")
        for slack in channels(nobody):
            error = not_delivered(slack)
            assert (error.status, error.final) == (None, False)


def test_no_log_shows_a_secret(workspace, caplog):
    caplog.set_level(logging.DEBUG)
    for logger in ("httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger)
    workspace.by_token().send(MESSAGE)
    workspace.by_webhook().send(MESSAGE)
    not_delivered(workspace.by_webhook("/services/x?secret=1#secret"))
    assert "HTTP Request: POST" in caplog.text
    assert [secret for secret in (TOKEN, WEBHOOK, "secret") if secret in caplog.text] == []


def test_no_cookie_of_one_channel_goes_along_with_the_next(odd):
    odd.body, odd.headers = b"ok", (("set-cookie", "session=hunter2"),)
    SlackChannel(webhook=f"{odd.url}/services/x").send(MESSAGE)
    assert list(_client(os.getpid()).cookies.jar) == []


def test_the_examples_of_the_docs_run(workspace):
    page = (Path(__file__).parents[2] / "docs" / "slack.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", page, re.S)
    assert "http://127.0.0.1:8091" in program
    exec(program.replace("http://127.0.0.1:8091", workspace.url), {})
    assert [post["text"] for post in workspace.slack.posts] == ["flights failed in count"]
    [settings] = re.findall(r"```toml\n(.*?)```", page, re.S)
    [(slug, documents)] = tomllib.loads(settings).items()
    assert slug == SlackChannel.get_block_type_slug()
    assert SlackChannel(**documents["ops"]).hears == ["failure", "late"]


@pytest.mark.parametrize("show", [repr, str, lambda b: b.model_dump_json()])
def test_a_channel_never_shows_its_secrets(show):
    both = SlackChannel(token="xoxb-hunter2", channel="#runs", webhook="https://here/hunter2")
    assert "hunter2" not in show(both)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"token": "xoxb-hunter2", "channel": "#runs"}, "#runs at https://slack.com/api"),
        ({"webhook": "https://hooks.slack.com/services/hunter2"}, "a webhook at hooks.slack.com"),
        ({"webhook": "hunter2"}, "a webhook that is no URL"),
    ],
    ids=["token", "webhook", "no webhook"],
)
def test_a_channel_tells_people_where_its_notes_go_and_no_secret(settings, where):
    assert SlackChannel(**settings).where == where


@pytest.mark.parametrize("settings", [{}, {"token": "xoxb-1"}, {"channel": "#runs"}])
def test_a_channel_has_a_way_to_post(settings):
    with pytest.raises(ConfigError, match="needs a token and a channel, or a webhook"):
        SlackChannel(**settings)


@pytest.mark.parametrize(
    "url", ["slack.com/api", "ftp://here", "http://", "http://[::1", "https://me:hunter2@here"]
)
def test_slack_is_called_by_http_only_and_with_no_password_in_the_address(url):
    with pytest.raises(ConfigError, match="http:// or https://") as caught:
        SlackChannel(webhook="https://here/x", api_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"token": "xoxb hunter2", "channel": "#runs"},
        {"token": "xoxb\r\nhunter2: 1", "channel": "#runs"},
        {"token": "xoxb-hunter2-é", "channel": "#runs"},
        {"webhook": "hunter2"},
        {"webhook": "ftp://here/hunter2"},
        {"webhook": "https://hunter2"},
        {"webhook": "http://[::hunter2"},
        {"webhook": "https://me:hunter2@here/services/x"},
    ],
    ids=str,
)
def test_what_cannot_be_a_key_is_unusable_and_never_shown(settings):
    slack = SlackChannel(**settings)
    with pytest.raises(KeyUnusable) as caught:
        slack.send(MESSAGE)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
