"""Stand-ins for outside systems: they answer as the real ones do, and show what came."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.fakes.slack import KEPT, TOKEN, WEBHOOK, Slack, create_app
from tests.serving import serving

ROOT = Path(__file__).parents[2]
BEARER = {"authorization": f"Bearer {TOKEN}"}
POST = "/api/chat.postMessage"


@pytest.fixture
def slack() -> Slack:
    return Slack(channels=("#runs",))


@pytest.fixture
def web(slack: Slack, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(create_app(slack)) as url, httpx.Client(base_url=url) as client:
        yield client


def test_the_command_says_where_it_listens_and_takes_posts(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    command = [sys.executable, "-m", "deployments", "fake", "slack", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = dict(process.stdout.readline().split() for _ in range(4))
            document = {"channel": "#any", "text": "hello"}
            bearer = {"authorization": f"Bearer {said['token']}"}
            url = f"{said['api_url']}/chat.postMessage"
            assert httpx.post(url, json=document, headers=bearer).json()["ok"] is True
            assert httpx.post(said["webhook"], json={"text": "hooked"}).text == "ok"
            assert "hello" in httpx.get(said["page"]).text
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("headers", "document", "error"),
    [
        ({}, {"channel": "#runs", "text": "x"}, "not_authed"),
        ({"authorization": "Bearer no"}, {"channel": "#runs", "text": "x"}, "invalid_auth"),
        (BEARER, {"channel": "#no", "text": "x"}, "channel_not_found"),
        (BEARER, {"text": "x"}, "channel_not_found"),
        (BEARER, {"channel": "#runs"}, "no_text"),
        (BEARER, {"channel": "#runs", "text": 7}, "no_text"),
        (BEARER, {"channel": "#runs", "text": "x" * 40_001}, "msg_too_long"),
        (BEARER, {"channel": "#runs", "blocks": "x"}, "invalid_blocks"),
        (BEARER, {"channel": "#runs", "blocks": [{}] * 51}, "invalid_blocks"),
        (BEARER, [], "no_text"),
    ],
)
def test_a_post_that_slack_refuses_is_refused_with_its_word(headers, document, error, web, slack):
    answer = web.post(POST, content=json.dumps(document), headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"ok": False, "error": error})
    assert not slack.posts


def test_a_repeat_gets_the_answer_of_the_first_and_is_not_kept(web):
    document = {"channel": "#runs", "text": "x", "client_msg_id": "same"}
    first, second = [web.post(POST, json=document, headers=BEARER).json() for _ in range(2)]
    assert first == second
    del document["client_msg_id"]
    for _ in range(2):
        web.post(POST, json=document, headers=BEARER)
    assert len(web.get("/fake/posts").json()) == 3


def test_the_next_answers_are_chosen_and_then_all_is_well_again(web):
    def post() -> Any:
        return web.post(POST, json={"channel": "#runs", "text": "x"}, headers=BEARER)

    web.post("/fake/next?status=429&retry_after=3&times=2")
    web.post("/fake/next?error=not_in_channel")
    web.post("/fake/next?status=503")
    limited = [post(), post()]
    assert {(a.status_code, a.headers["retry-after"]) for a in limited} == {(429, "3")}
    assert post().json()["error"] == "not_in_channel"
    assert post().status_code == 503
    assert post().json()["ok"] is True


def test_a_webhook_answers_in_plain_words(web):
    assert web.post(WEBHOOK, json={"text": "x"}).text == "ok"
    missing = web.post("/services/T0/B0/other", json={"text": "x"})
    assert (missing.status_code, missing.text) == (404, "no_service")
    assert web.post(WEBHOOK, content=b"{").status_code == 400


def test_the_page_shows_the_newest_first_and_runs_nothing(web):
    assert "Nothing came yet" in web.get("/").text
    for text in ("older", "<script>newer</script>"):
        web.post(WEBHOOK, json={"text": text})
    page = web.get("/").text
    assert page.index("&lt;script&gt;newer") < page.index("older")
    assert "<script>" not in page


def test_old_posts_are_forgotten(slack):
    for number in range(KEPT + 1):
        slack.hook({"text": str(number)})
    assert (len(slack.posts), slack.posts[0]["text"]) == (KEPT, "1")
