"""`penstock fake slack`: take notes as Slack does, and show them on a page.

POST /api/chat.postMessage, POST /services/…  ──► posts ──► GET / (a page), GET /fake/posts (JSON)
POST /fake/next?status=429&retry_after=3      ──► what the next posts are answered instead
"""

import argparse
import html
import json
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette

TOKEN = "xoxb-fake"  # noqa: S105 - nothing real takes it
WEBHOOK = "/services/T0FAKE/B0FAKE/secret"
KEPT = 1000  # posts; older ones are forgotten
MAX_TEXT, MAX_BLOCKS = 40_000, 50  # https://docs.slack.dev/reference/methods/chat.postMessage

EXAMPLES = ("fake slack --port 8091", "fake slack --port 8091 --channel '#runs'")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8091, help="port (default: %(default)s)")
    parser.add_argument("--token", default=TOKEN, help="the token it takes (default: %(default)s)")
    parser.add_argument(
        "--channel", action="append", help="a channel that exists; may be repeated (default: all)"
    )


def main(options: argparse.Namespace) -> int:
    import uvicorn

    slack = Slack(token=options.token, channels=tuple(options.channel or ()))
    with socket.create_server((options.host, options.port)) as mine:
        base = f"http://{options.host}:{mine.getsockname()[1]}"
        print(f"page     {base}/\napi_url  {base}/api\ntoken    {slack.token}")
        print(f"webhook  {base}{WEBHOOK}", flush=True)
        config = uvicorn.Config(create_app(slack), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[mine])
    return 0


@dataclass
class Slack:
    """A workspace in memory: what it takes, what came, and what it answers next instead."""

    token: str = TOKEN
    channels: tuple[str, ...] = ()  # that exist; any does if empty
    posts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    instead: deque[dict[str, str]] = field(default_factory=deque)
    _stamps: dict[tuple[str, str], str] = field(default_factory=dict)
    _count: int = 0

    def post_message(self, document: dict[str, Any], bearer: str) -> dict[str, Any]:
        """The answer to chat.postMessage; a repeat of a client_msg_id gets that of the first."""
        channel, repeat = str(document.get("channel") or ""), document.get("client_msg_id")
        if error := self._wrong_token(bearer) or self._wrong(document):
            return {"ok": False, "error": error}
        if not channel or (self.channels and channel not in self.channels):
            return {"ok": False, "error": "channel_not_found"}
        stamp = self._stamps.get((channel, str(repeat))) if repeat else None
        if stamp is None:
            stamp = self._keep(channel, document)
            if repeat:
                self._stamps[channel, str(repeat)] = stamp
        return {"ok": True, "channel": channel, "ts": stamp, "message": {"ts": stamp}}

    def hook(self, document: dict[str, Any]) -> tuple[int, str]:
        """The answer to a post to the incoming webhook, which knows of no repeats."""
        if error := self._wrong(document):
            return 400, error
        self._keep("(webhook)", document)
        return 200, "ok"

    def _wrong_token(self, bearer: str) -> str | None:
        if not bearer:
            return "not_authed"
        return None if bearer == f"Bearer {self.token}" else "invalid_auth"

    def _wrong(self, document: dict[str, Any]) -> str | None:
        text, blocks = document.get("text"), document.get("blocks") or []
        text = text if isinstance(text, str) else ""
        if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS:
            return "invalid_blocks"
        if not text and not blocks:
            return "no_text"
        return "msg_too_long" if len(text) > MAX_TEXT else None

    def _keep(self, channel: str, document: dict[str, Any]) -> str:
        self._count += 1
        stamp = f"{self._count}.000000"
        self.posts.append({**document, "channel": channel, "ts": stamp})
        return stamp


def create_app(slack: Slack) -> "Starlette":
    """The workspace as an ASGI application."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route

    def instead() -> Response | None:
        if not slack.instead:
            return None
        told = slack.instead.popleft()
        after = {"retry-after": told["retry_after"]} if "retry_after" in told else {}
        status = int(told.get("status", "200"))
        if status == 429:
            return JSONResponse({"ok": False, "error": "ratelimited"}, status, after)
        if "error" in told:
            return JSONResponse({"ok": False, "error": told["error"]}, status, after)
        return PlainTextResponse("", status, after)

    async def read(request: Request) -> dict[str, Any]:
        try:
            document = json.loads(await request.body())
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    async def post_message(request: Request) -> Response:
        document, bearer = await read(request), request.headers.get("authorization", "")
        return instead() or JSONResponse(slack.post_message(document, bearer))

    async def hook(request: Request) -> Response:
        if request.url.path != WEBHOOK:
            return PlainTextResponse("no_service", 404)
        if answer := instead():
            return answer
        status, text = slack.hook(await read(request))
        return PlainTextResponse(text, status)

    async def next_answers(request: Request) -> Response:
        told = dict(request.query_params)
        slack.instead.extend([told] * int(told.pop("times", "1")))
        return JSONResponse({"waiting": len(slack.instead)})

    async def posts(_: Request) -> Response:
        return JSONResponse(list(slack.posts))

    async def page(_: Request) -> Response:
        return HTMLResponse(_page(slack), headers={"content-security-policy": "script-src 'none'"})

    return Starlette(
        routes=[
            Route("/api/chat.postMessage", post_message, methods=["POST"]),
            Route("/services/{path:path}", hook, methods=["POST"]),
            Route("/fake/next", next_answers, methods=["POST"]),
            Route("/fake/posts", posts),
            Route("/", page),
        ]
    )


def _page(slack: Slack) -> str:
    notes = "".join(
        f"<article><b>{html.escape(str(post['channel']))}</b><pre>{html.escape(_text(post))}</pre>"
        "</article>"
        for post in reversed(slack.posts)
    )
    return f"<!doctype html><meta charset=utf-8><title>Slack</title>{notes or 'Nothing came yet.'}"


def _text(post: dict[str, Any]) -> str:
    """What people would read of a post: the texts of its blocks in order, else its text."""

    def texts(node: Any) -> list[str]:
        if isinstance(node, list):
            return [text for item in node for text in texts(item)]
        if not isinstance(node, dict):
            return []
        if isinstance(node.get("text"), str):
            return [f"{node['text']} ({node['url']})" if "url" in node else node["text"]]
        begin = ["\n"] if node.get("type") == "rich_text_preformatted" else []
        return begin + texts(node.get("text")) + texts(node.get("elements"))

    return "".join(texts(post.get("blocks"))) or str(post.get("text", ""))
