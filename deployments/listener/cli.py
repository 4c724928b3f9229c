"""`penstock listen`: take reports, check each signature, keep what came, say what came.

It holds what checks signatures, never what makes them, and asks nothing of a Prefect server.
"""

import argparse
import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blocks._home import reports_file
from blocks.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

    from blocks._keys import KeySet
    from deployments.listener.store import Store
    from deployments.listener.watch import Watch

EXAMPLES = (
    "listen --key .penstock/keys/signing.pub.pem --port 8090",
    "listen --key old.pub.pem --key new.pub.pem --audience https://reports.example.org",
    "listen --jwks https://reports.example.org/jwks.json --expect-run nightly-7 --for 600",
    "listen --algorithm HS256 --variable REPORT_SECRET --until-ended",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address (default: %(default)s)")
    add("--port", type=int, default=8080, help="port, 0 for any (default: %(default)s)")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument(
        "--key",
        type=Path,
        action="append",
        help="file of public keys as PEM, or of an HS256 secret; may be given again",
    )
    keys.add_argument("--variable", help="environment variable that holds what --key's file would")
    keys.add_argument("--jwks", help="JWKS document: a file, or an https address")
    add(
        "--algorithm",
        choices=("RS256", "ES256", "EdDSA", "HS256"),
        default="RS256",
        help="the one accepted, but for --jwks (default: %(default)s)",
    )
    add("--audience", help="whom v1 messages must be for (default: whomever they name)")
    add("--store", type=Path, help="where to keep what came")
    add("--quiet", action="store_true", help="print no line per message")
    add("--for", type=_seconds, dest="seconds", help="stop after that many seconds")
    add("--until-ended", action="store_true", help="stop when all runs heard of have ended")
    add("--expect", type=int, default=0, help="stop at that many verified messages, else fail")
    add(
        "--expect-run",
        action="append",
        default=[],
        help="stop when the end of that run is told, else fail; may be given again",
    )


def main(options: argparse.Namespace) -> int:
    from deployments.listener.store import Store
    from deployments.listener.watch import Watch

    keys = _keys(options)
    store = Store(options.store or reports_file())
    watch = Watch(
        least=options.expect,
        ends=frozenset(options.expect_run),
        until_ended=options.until_ended,
        quiet=options.quiet,
    )
    with _socket(options.host, options.port) as port:
        _serve(options, keys, store, watch, port)
    for missing in watch.missing:
        print(f"penstock: {missing}", file=sys.stderr)
    return 1 if watch.missing else 0


def _serve(
    options: argparse.Namespace, keys: "KeySet", store: "Store", watch: "Watch", port: socket.socket
) -> None:
    """Until it is told to stop; what was answered is kept by then."""
    import uvicorn

    from deployments.listener.app import create_app
    from deployments.listener.check import Check
    from deployments.listener.repeats import Repeats
    from deployments.listener.store import Writer

    writer = Writer(store)
    writer.open()
    try:
        check = Check(keys, options.audience)
        app = create_app(check, writer, Repeats(store.read()), watch.hear)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)
        # uvicorn ends well at both signals, then raises them again: SIGTERM is no failure here.
        signal.signal(signal.SIGTERM, lambda *_: server.handle_exit(signal.SIGTERM, None))
        asyncio.run(_until_stopped(server, port, watch, options.seconds))
    finally:
        writer.close()


async def _until_stopped(
    server: "uvicorn.Server", port: socket.socket, watch: "Watch", seconds: float | None
) -> None:
    loop = asyncio.get_running_loop()

    def stop(after: float) -> None:
        loop.call_later(after, setattr, server, "should_exit", True)

    watch.stop = stop
    if seconds is not None:
        stop(seconds)
    host, number = port.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{number}", file=sys.stderr, flush=True)
    await server.serve([port])


def _keys(options: argparse.Namespace) -> "KeySet":
    """The keys; those of this machine are looked at now, a JWKS of the network when needed."""
    from blocks._jwks import remote
    from blocks._keys import KeySet

    for path in options.key or []:
        if not path.is_file():
            raise ConfigError(f"--key {path} is no file")
    if options.jwks and options.algorithm == "HS256":
        raise ConfigError("a JWKS holds no secret of HS256: name its file with --key")
    keys = KeySet(
        options.algorithm,
        paths=tuple(str(path) for path in options.key or []),
        variable=options.variable,
        jwks=options.jwks,
    )
    if keys.remote:
        remote(options.jwks)  # whether it is an address that may be asked
    else:
        keys.known()
    return keys


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on port {port} of {host}: {error.strerror}; choose another --port"
        ) from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds
