"""The engine's side of the shim: started when a root needs it, closed when that root ends."""

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from blocks.errors import JobFailed
from flows._run.procfs import RUN_MARK, start_ticks

SHIM = Path(__file__).with_name("shim.py")


class ShimClient:
    """Asks the shim to start and stop programs; hears of their ends."""

    def __init__(self, root: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # By path, isolated and without site: no import of ours can break it, 20 ms to start.
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SHIM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={RUN_MARK: root, "PATH": os.environ.get("PATH", "")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self.start_ticks = start_ticks(self.pid)
        self._socket = ours
        self._ids = count(1)
        self._lock = threading.Lock()
        self._started: dict[str, Future[dict[str, Any]]] = {}
        self._ended: dict[str, Future[dict[str, Any]]] = {}
        self._reader = threading.Thread(target=self._read, name="penstock-shim", daemon=True)
        self._reader.start()

    def start(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Start one program; return its id and the shim's answer."""
        name = str(next(self._ids))
        self._started[name], self._ended[name] = Future(), Future()
        self._send({**request, "do": "start", "id": name})
        answer = self._started[name].result()
        del self._started[name]
        return name, answer

    def ended(self, name: str) -> Future[dict[str, Any]]:
        """Resolves to the program's outcome and when it had gone, with all that it started."""
        return self._ended[name]

    def stop(self, name: str, grace: float) -> None:
        self._send({"do": "stop", "id": name, "grace": grace})

    def close(self) -> None:
        """End everything still running and the shim itself; returns when it is gone."""
        try:
            # Not close(): the reader still sleeps in recv and would keep the connection open.
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.process.kill()  # the connection is broken: its programs die with it
        self.process.wait()
        self._reader.join()
        self._socket.close()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def _send(self, message: dict[str, Any]) -> None:
        try:
            with self._lock:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise JobFailed("the shim", f"is gone ({error.strerror})") from error

    def _read(self) -> None:
        # A shim that was killed before it read all we sent resets the connection.
        with self._socket.makefile("rb") as lines, suppress(ConnectionError):
            for line in lines:
                message = json.loads(line)
                if "outcome" in message:
                    self._ended[message["id"]].set_result(message)
                else:
                    self._started[message["id"]].set_result(message)
        lost = JobFailed("the shim", "died")
        for future in [*self._started.values(), *self._ended.values()]:
            if not future.done():
                future.set_exception(lost)
