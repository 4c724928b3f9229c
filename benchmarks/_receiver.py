"""A receiver that costs little: `python -m benchmarks._receiver PORT PUBLIC.pem ALGORITHM`.

It answers every post with 204 and counts. A line on its standard input is answered with one line of
JSON: how many posts came and how many different ones, when the first and the last, and whether the
signatures of a sample are right.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import jwt

SAMPLE = 50  # one of so many bodies is kept, to be verified at the end
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Tally:
    """What came so far."""

    def __init__(self, public: bytes, algorithm: str) -> None:
        self._public, self._algorithm = public, algorithm
        self.posts = 0
        self.ids: set[bytes] = set()
        self.first = self.last = 0.0
        self.sample: list[bytes] = []

    def add(self, message_id: bytes, body: bytes) -> None:
        self.last = time.time()
        self.first = self.first or self.last
        if self.posts % SAMPLE == 0:
            self.sample.append(body)
        self.posts += 1
        self.ids.add(message_id)

    def told(self) -> dict[str, Any]:
        wrong = 0
        for body in self.sample:
            try:
                jwt.decode(json.loads(body)["payload"], self._public, [self._algorithm])
            except (ValueError, KeyError, jwt.PyJWTError):
                wrong += 1
        return {
            "posts": self.posts,
            "messages": len(self.ids),
            "first": self.first,
            "last": self.last,
            "sampled": len(self.sample),
            "wrong": wrong,
        }


class Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as a post with a content-length needs."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker alone
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            lines = self._data[:end].lower().split(b"\r\n")[1:]
            headers = dict(line.split(b":", 1) for line in lines)
            whole = end + 4 + int(headers.get(b"content-length", b"0"))
            if len(self._data) < whole:
                return
            self._tally.add(headers.get(b"webhook-id", b""), self._data[end + 4 : whole])
            self._data = self._data[whole:]
            self._transport.write(ANSWER)


async def serve(port: int, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Connection(tally), "127.0.0.1", port)
    print("ready", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(tally.told()), flush=True)


if __name__ == "__main__":
    port, public, algorithm = sys.argv[1:]
    asyncio.run(serve(int(port), Tally(Path(public).read_bytes(), algorithm)))
