"""An outside system for tests of the kernel: it speaks HTTP, and really runs what it is given."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx

from blocks.errors import Unreachable
from flows import job_task
from flows._run.noted import Remote
from flows._run.remote import Look, State
from flows._run.run_remote import Work, run_remote

PLACE = "tests-elsewhere"
CLIENT = "tests.elsewhere:Elsewhere"


class System:
    """The server: programs by id, each with its tag."""

    def __init__(self) -> None:
        self.programs: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self.told_to_stop: set[str] = set()
        self.mute = 0  # how many of the next requests get no sensible answer
        self.swallow = False  # take what is submitted, and do not say so
        system = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                words = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = system.answer(self.path, words)
                if answer is None:
                    self.connection.close()
                    return
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, words: dict[str, Any]) -> Any:
        if self.mute:
            self.mute -= 1
            return None
        match path:
            case "/submit":
                id = f"work-{uuid4().hex[:8]}"
                self.programs[id] = words["tag"], subprocess.Popen(words["argv"])
                return None if self.swallow else id
            case "/find":
                return next((i for i, (tag, _) in self.programs.items() if tag == words["tag"]), "")
            case "/look":
                if words["id"] not in self.programs:
                    return "LOST"
                code = self.programs[words["id"]][1].poll()
                if code is not None and words["id"] in self.told_to_stop:
                    return "KILLED"
                return {None: "RUNNING", 0: "FINISHED"}.get(code, f"FAILED with {code}")
            case "/stop":
                self.told_to_stop.add(words["id"])
                self.programs[words["id"]][1].terminate()
                return "yes"

    @property
    def alive(self) -> list[str]:
        return [id for id, (_, program) in self.programs.items() if program.poll() is None]

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.programs.values()]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for _, program in self.programs.values():
            program.kill()
            program.wait()


STATES: dict[str, State] = {
    "FINISHED": "succeeded",
    "KILLED": "stopped",
    "LOST": "lost",
    "RUNNING": "active",
}


class Elsewhere:
    """Its client."""

    def __init__(self, url: str) -> None:
        self._url = url

    def submit(self, tag: str, argv: list[str]) -> str:
        return str(self._ask("/submit", tag=tag, argv=argv))

    def find(self, tag: str) -> str | None:
        return self._ask("/find", tag=tag) or None

    def look(self, id: str) -> Look:
        word = self._ask("/look", id=id)
        return Look(STATES.get(word, "failed"), word, link=f"{self._url}/{id}")

    def stop(self, id: str) -> None:
        self._ask("/stop", id=id)

    def _ask(self, path: str, **words: Any) -> Any:
        try:
            return httpx.post(self._url + path, json=words).json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unreachable(f"no answer from {self._url}: {type(error).__name__}") from None


def sleeper(url: str, seconds: float, code: int = 0, **options: Any) -> Work:
    """Work that takes some seconds."""
    argv = [sys.executable, "-c", f"import time; time.sleep({seconds}); raise SystemExit({code})"]

    def submit(record: Remote) -> str:
        return Elsewhere(url).submit(record.tag, argv)

    return Work(PLACE, {"url": url}, "sleeper", **{"submit": submit, "every": 0.1, **options})


@job_task
def sleeps(url: str, seconds: float, code: int = 0) -> str:
    return str(run_remote(sleeper(url, seconds, code)).id)
