"""A real HTTP receiver that answers as a test says, and wakes who waits for a post."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A status, with headers; pieces of bytes that are sent as they come; None: hang up.
Answer = int | tuple[int, dict[str, str]] | Iterator[bytes] | None


@dataclass(frozen=True)
class Post:
    """What came."""

    path: str
    headers: dict[str, str]  # by their names in lower case
    body: bytes

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id", "")


class Receiver:
    """It may go down, and come back at the same address; `answer` is asked at each post."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.answer: Callable[[Post], Answer] = lambda _: 204
        self._news = threading.Condition()
        self._address = ("127.0.0.1", 0)
        self._server: ThreadingHTTPServer | None = None
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._address[1]}"

    @property
    def ids(self) -> list[str]:
        return [post.id for post in self.posts]

    def up(self) -> None:
        self._server = ThreadingHTTPServer(self._address, self._handler())
        self._address = ("127.0.0.1", self._server.server_port)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def down(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, until: Callable[[], Any] | None = None, *, seconds: float = 30) -> None:
        """Until something came, or as much as `until` says."""
        deadline = time.monotonic() + seconds
        with self._news:
            while not (until() if until else self.posts):
                left = deadline - time.monotonic()
                assert self._news.wait(left), f"not within {seconds} s; there came {self.posts}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                post = Post(self.path, headers, body)
                answer = receiver.answer(post)
                with receiver._news:
                    receiver.posts.append(post)
                    receiver._news.notify_all()
                if isinstance(answer, Iterator):
                    with suppress(OSError):  # who posted waits no longer
                        for piece in answer:
                            self.wfile.write(piece)
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                if status is not None:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: Any) -> None: ...

        return Handler
