"""The listener as an ASGI application: every post is checked, kept, and then answered.

POST /…/<route> ──► check ──► repeat? ──► store ──► 204, or 401 for what is not ours
"""

import os
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from deployments.listener.check import Check, Post
from deployments.listener.repeats import Repeats
from deployments.listener.store import Heard, Writer

LARGE = 64 << 10  # bytes from which on a check is slow enough to keep others waiting


def create_app(
    check: Check, writer: Writer, repeats: Repeats, told: Callable[[Heard, bool], None]
) -> Starlette:
    """An application that answers 2xx when a message is kept, also to one that was kept before.

    `told` is called with each message that was answered, and whether it was new.
    """

    async def receive(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > check.max_body:
                break  # the rest is not read
        post = Post(request.scope["path"], dict(request.headers), bytes(body))
        if len(body) > check.max_body:
            told(check.refused(post, f"over the limit of {check.max_body} bytes"), True)
            return PlainTextResponse("too large", status_code=413)
        if not post.known:
            return PlainTextResponse("no such route", status_code=404)
        slow = check.keys.remote or len(body) > LARGE
        heard = await run_in_threadpool(check, post) if slow else check(post)
        try:
            new = await repeats.keep(heard, writer.add)
        except OSError as error:
            # No 2xx: the sender keeps it, and comes again.
            return PlainTextResponse(f"not kept: {error.strerror}", status_code=503)
        told(heard, new)
        if not heard.verified:
            return PlainTextResponse("not verified", status_code=401)
        return Response(status_code=204)

    async def health(_: Request) -> Response:
        return PlainTextResponse(f"ok {os.getpid()}")

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/{path:path}", receive, methods=["POST"]),
        ]
    )
