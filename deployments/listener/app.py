"""`penstock listen`: take reports, check each signature, keep what came.

POST /<route>  {"payload": <JWT>}  ──► verify ──► store ──► 204, or 401 for what is not ours
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from blocks._home import home, private
from blocks.errors import ConfigError, KeyUnusable, NotVerified

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from blocks.signing import VerifyKey
    from deployments.listener.store import Store

ROUTES = ("progress", "status", "results")
MAX_BODY = 16 << 20

EXAMPLES = ("listen --key .penstock/keys/signing.pub.pem --port 8090",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port (default: %(default)s)")
    parser.add_argument("--key", type=Path, required=True, help="PEM file of the public key")
    parser.add_argument("--algorithm", default="RS256", help="accepted (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="where to keep what came")


def main(options: argparse.Namespace) -> int:
    import uvicorn

    from blocks.signing import VerifyKey
    from deployments.listener.store import Store

    if not options.key.is_file():
        raise ConfigError(f"--key {options.key} is no file")
    key = VerifyKey(path=str(options.key), algorithm=options.algorithm)
    store = Store(options.store or private(home() / "listener") / "reports.jsonl")
    app = create_app(key, store)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    return 0


def create_app(key: "VerifyKey", store: "Store", *, max_body: int = MAX_BODY) -> "Starlette":
    """The listener as an ASGI application: posts of ROUTES are checked with `key` and kept.

    A message that came before is answered 2xx and not kept again: its sender may have missed the
    first answer.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from blocks._messages import decode
    from deployments.listener.store import Heard

    seen = {(heard.id, heard.route) for heard in store.read() if heard.verified}

    async def receive(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_body:
                return PlainTextResponse("too large", status_code=413)
        route = request.path_params["path"].rpartition("/")[2]
        message_id = request.headers.get("webhook-id", "")
        at = datetime.now(UTC).isoformat()
        if route not in ROUTES:
            return PlainTextResponse("no such route", status_code=404)
        try:
            payload = decode(body, key.verify, max_body=max_body)
        except (NotVerified, KeyUnusable) as error:
            why = str(error)
            await run_in_threadpool(store.add, Heard(at, message_id, route, False, why=why))
            return PlainTextResponse("not verified", status_code=401)
        if (message_id, route) not in seen:
            await run_in_threadpool(store.add, Heard(at, message_id, route, True, payload))
            seen.add((message_id, route))
        return Response(status_code=204)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/{path:path}", receive, methods=["POST"]),
        ]
    )
