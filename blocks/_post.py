"""One HTTP post with an end: a total time, a bounded answer, no redirect, TLS verified.

A time-out per read is not enough: an answer that drips one byte a second would never end. So the
connection itself knows when the whole exchange must be over:
httpcore, which httpx stands on, lets us say so.
"""

import ssl
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from threading import local
from typing import Any

import httpcore
import httpx

from blocks.errors import NotDelivered

ONE_PIECE = 64 << 10  # bytes of a request that are sent at once
MAX_ANSWER = 64 << 10  # bytes that are read of an answer
FINAL = frozenset({400, 410, 413, 422})  # no further attempt of the same message can help


class Poster:
    """Posts over kept connections. Threads may share one; each post has its own deadline."""

    def __init__(self, verify: bool | str = True) -> None:
        """`verify` is False, or the path of certificates to trust beside the system's."""
        context = httpx.create_ssl_context(verify=bool(verify))
        if isinstance(verify, str):
            context.load_verify_locations(verify)
        self._network = _Network()
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=None,  # each thread has one: none waits until another's is free
            keepalive_expiry=30,
            network_backend=self._network,
        )

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout: float, about: str
    ) -> None:
        """Post `body`; return when a 2xx was read within `timeout` seconds in all.

        Raises NotDelivered, naming `about` and never the URL: it may hold a password.
        """
        try:
            target, own = _target(url)
            given = [(name.encode("ascii"), v.encode("ascii")) for name, v in headers.items()]
            with (
                self._network.until(time.monotonic() + timeout),
                self._pool.stream("POST", target, headers=[*own, *given], content=body) as answer,
            ):
                _read(answer)
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            httpx.InvalidURL,
            UnicodeError,
        ) as error:
            # Only the kind of the error: its text may hold what must not be told.
            raise NotDelivered(f"no answer to {about}: {type(error).__name__}") from None
        if not 200 <= answer.status < 300:
            raise NotDelivered(
                f"{about} was answered with {answer.status}",
                status=answer.status,
                retry_after=_retry_after(httpx.Headers(answer.headers).get("retry-after")),
                final=answer.status in FINAL,
            )

    def close(self) -> None:
        self._pool.close()


class _Network(httpcore.NetworkBackend):
    """Connections whose every wait ends when the post of this thread has to be over."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()
        self._due = local()

    @contextmanager
    def until(self, due: float) -> Iterator[None]:
        self._due.at = due
        yield

    def left(self) -> float:
        if (left := self._due.at - time.monotonic()) <= 0:
            raise httpcore.ReadTimeout("the time for the whole post is over")
        return float(left)

    def connect_tcp(self, host: str, port: int, *_: Any, **options: Any) -> "_Stream":
        options["timeout"] = self.left()
        return _Stream(self._backend.connect_tcp(host, port, **options), self)


class _Stream(httpcore.NetworkStream):
    """Also sends head and body of a short request in one piece, which wakes the receiver once."""

    def __init__(self, stream: httpcore.NetworkStream, network: _Network) -> None:
        self._stream, self._network = stream, network
        self._held = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with suppress(httpcore.WriteError):  # it may have answered before it read everything
            self._flush()
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._held += buffer
        if len(self._held) > ONE_PIECE:
            self._flush()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._stream.write(held, self._network.left())

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> "_Stream":
        secured = self._stream.start_tls(ssl_context, server_hostname, self._network.left())
        return _Stream(secured, self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()


@lru_cache(maxsize=64)
def _target(url: str) -> tuple[httpcore.URL, tuple[tuple[bytes, bytes], ...]]:
    """Where a post goes, and the header that a user in the URL asks for."""
    parsed = httpx.URL(url)
    target = httpcore.URL(
        scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
    )
    if not parsed.userinfo:
        return target, ()
    user = b64encode(f"{parsed.username}:{parsed.password}".encode())
    return target, ((b"authorization", b"Basic " + user),)


def _read(answer: httpcore.Response) -> None:
    """Read a short answer whole, so that the connection can be used again; drop a long one."""
    size = 0
    for chunk in answer.iter_stream():
        size += len(chunk)
        if size > MAX_ANSWER:
            return


def _retry_after(value: str | None) -> float | None:
    """Seconds from now (RFC 9110, 10.2.3: a number or a date); None for anything else."""
    if value is None:
        return None
    try:
        return max(0.0, float(value)) if value.strip().isdigit() else _until(value)
    except (ValueError, TypeError):
        return None


def _until(date: str) -> float:
    at = parsedate_to_datetime(date)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
