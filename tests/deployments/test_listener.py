"""The listener: what it takes in both formats, what it refuses, what it keeps, when it ends."""

import asyncio
import errno
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks import SigningKey
from blocks._changes import Change
from blocks._envelope import envelope
from blocks._keys import KeySet
from blocks._messages import Names, messages
from blocks._token import signed_headers
from blocks.errors import ConfigError
from blocks.signing import jwks
from deployments.cli import main
from deployments.listener import check
from deployments.listener import store as storage
from deployments.listener.app import create_app
from deployments.listener.check import Check
from deployments.listener.repeats import OTHER, Repeats
from deployments.listener.store import Heard, Store, Writer
from deployments.listener.watch import Watch, line

ROOT = Path(__file__).parents[2]


def pair() -> tuple[SigningKey, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return SigningKey(pem=private.decode()), public.decode()


KEY, PUBLIC = pair()
FIELDS = {"state": "running", "dag_id": "d", "run_id": "r", "task_id": "t"}
END = {"state": "success", "dag_id": "d", "run_id": "r", "progress": 100, "error": ""}
ENVELOPE = {**FIELDS, "seq": 7, "attempt": 2}
SEED = ("status", {"webhook-id": "1/status"})


def seed(fields: dict[str, Any] = FIELDS, key: SigningKey = KEY) -> bytes:
    return json.dumps({"payload": key.sign(fields)}).encode()


BODY = seed()


def v1(document: Any = ENVELOPE, message_id: str = "1/status", **more: Any) -> tuple[bytes, Any]:
    """The body and headers of a v1 message."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    names = {"key": KEY, "issuer": "penstock", "audience": "here", **more}
    return body, signed_headers(names.pop("key"), body, message_id, **names)


class Listener:
    """An application over a store of its own, posted to in this process."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.store = Store(path)
        self.writer = Writer(self.store)
        self.told: list[tuple[Heard, bool]] = []
        check = Check(KeySet(text=PUBLIC), **{"max_body": 30_000, **options})
        repeats = Repeats(self.store.read())
        self.app = create_app(
            check, self.writer, repeats, lambda heard, new: self.told.append((heard, new))
        )

    def posts(self, *posts: tuple[str, bytes, dict[str, str]]) -> list[int]:
        """The statuses of posts that are sent all at once."""

        async def send() -> list[int]:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                sent = (client.post(f"/{at}", content=b, headers=h) for at, b, h in posts)
                return [answer.status_code for answer in await asyncio.gather(*sent)]

        return asyncio.run(send())

    def post(
        self, body: bytes, headers: dict[str, str] | None = None, route: str = "status"
    ) -> int:
        return self.posts(
            (route, body, {"webhook-id": "1/status"} if headers is None else headers)
        )[0]

    @property
    def heard(self) -> list[Heard]:
        return list(self.store.read())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reports.jsonl"


@pytest.fixture
def listener(path: Path) -> Iterator[Listener]:
    mine = Listener(path, audience="here")
    yield mine
    mine.writer.close()


def test_a_seed_message_is_kept_with_its_fields(listener):
    assert listener.post(BODY) == 204
    (heard,) = listener.heard
    assert (heard.id, heard.route, heard.verified) == ("1/status", "status", True)
    assert (heard.format, heard.payload, heard.why) == ("seed", FIELDS, "")


def test_a_v1_message_is_kept_with_its_number_and_attempt(listener):
    assert listener.post(*v1()) == 204
    (heard,) = listener.heard
    assert (heard.format, heard.payload, heard.verified) == ("v1", ENVELOPE, True)
    assert (heard.seq, heard.attempt) == (7, 2)


@pytest.mark.parametrize("route", ["satellite/v1/status", "events", "x/events"])
def test_a_v1_message_may_go_to_any_route(route, listener):
    assert listener.post(*v1(), route) == 204
    assert [heard.route for heard in listener.heard] == [route.rpartition("/")[2]]


def test_a_prefix_before_a_route_of_the_seed_is_fine(listener):
    assert listener.post(BODY, route="satellite/v1/status") == 204
    assert [heard.route for heard in listener.heard] == ["status"]


@pytest.mark.parametrize("route", ["secrets", "events", ""])
def test_the_seed_knows_no_other_routes(route, listener):
    assert listener.post(BODY, route=route) == 404
    assert listener.heard == []


@pytest.mark.parametrize("message", [(BODY, None), v1()], ids=["seed", "v1"])
def test_a_repeat_is_answered_well_and_not_kept_again(message, listener):
    assert [listener.post(*message), listener.post(*message)] == [204, 204]
    assert len(listener.heard) == 1
    assert [new for _, new in listener.told] == [True, False]


def test_a_later_attempt_is_a_repeat_although_its_signature_is_another(listener):
    body, headers = v1()
    _, later = v1(now=int(headers["webhook-timestamp"]) + 5)
    assert later["webhook-signature"] != headers["webhook-signature"]
    assert [listener.post(body, headers), listener.post(body, later)] == [204, 204]
    assert len(listener.heard) == 1


def test_repeats_that_come_at_once_are_kept_once(listener):
    body, headers = v1()
    assert listener.posts(*[("events", body, headers)] * 10) == [204] * 10
    assert len(listener.heard) == 1


def test_a_v1_repeat_at_another_route_is_a_repeat(listener):
    body, headers = v1()
    assert listener.posts(("a", body, headers), ("b", body, headers)) == [204, 204]
    assert len(listener.heard) == 1


def test_the_same_id_with_other_content_is_noted_once_and_the_first_stands(listener):
    posts = [v1(), v1({**ENVELOPE, "seq": 8}), v1({**ENVELOPE, "seq": 8}), v1()]
    assert [listener.post(*post) for post in posts] == [204] * 4
    first, other = listener.heard
    assert (first.verified, first.seq) == (True, 7)
    assert (other.verified, other.payload, other.why) == (False, None, OTHER)


def test_senders_that_give_no_id_are_told_apart_by_their_fields(listener):
    bodies = [seed(), seed({**FIELDS, "task_id": "u"}), seed()]
    assert [listener.post(body, {}) for body in bodies] == [204] * 3
    assert [heard.payload["task_id"] for heard in listener.heard] == ["t", "u"]


@pytest.mark.parametrize("message", [(BODY, None), v1()], ids=["seed", "v1"])
def test_what_came_before_a_restart_is_known_after_it(message, listener, path):
    listener.post(*message)
    listener.post(*v1({"other": "content"}))
    listener.post(*v1({"third": "content"}))
    before = listener.heard
    listener.writer.close()
    again = Listener(path)
    assert again.post(*message) == 204
    assert again.post(*v1({"third": "content"})) == 204
    assert again.heard == before
    again.writer.close()


def test_a_store_of_older_lines_is_read(path):
    old = {"at": "2026-01-01T00:00:00+00:00", "id": "1/status", "route": "status"}
    path.write_text(json.dumps({**old, "verified": True, "payload": FIELDS, "why": ""}) + "\n")
    listener = Listener(path)
    assert listener.post(BODY) == 204
    assert [heard.format for heard in listener.heard] == ["seed"]
    listener.writer.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"payload": {"state": "running"}}', BODY[:-9] + b"AAAAAA" + BODY[-3:]],
    ids=["empty", "list", "object", "unsigned", "changed"],
)
def test_what_is_not_signed_by_us_is_refused_and_noted(body, listener):
    assert listener.post(body) == 401
    (heard,) = listener.heard
    assert (heard.verified, heard.payload) == (False, None)
    assert heard.why
    assert listener.post(BODY) == 204


@pytest.mark.parametrize(
    ("post", "why"),
    [
        (lambda: v1(key=pair()[0]), "signature refused"),
        (lambda: (b"{}", v1()[1]), "not the one that was signed"),
        (lambda: v1(audience="elsewhere"), "another audience"),
        (lambda: v1(now=1_000_000_000), "from now"),
        (lambda: v1(b'{"a": 1, "a": 2}'), "given twice"),
        (lambda: v1(b"[]"), "no JSON object"),
        (lambda: v1(b"[" * 20_000), "nested too deeply"),
        (lambda: (BODY, {"webhook-id": "1", "webhook-timestamp": "1000000000"}), "from now"),
        (lambda: (BODY, {"webhook-id": "1", "webhook-signature": ""}), "no number"),
    ],
)
def test_a_message_that_is_not_for_us_now_is_refused_with_the_reason(post, why, listener):
    assert listener.post(*post()) == 401
    (heard,) = listener.heard
    assert why in heard.why
    assert not heard.verified


def test_what_strangers_send_takes_little_room_and_no_control_of_a_terminal(listener):
    assert listener.post(b"", {"webhook-id": "x" * 5000, "webhook-signature": "\x1b[2J"}) == 401
    (heard,) = listener.heard
    assert len(heard.id) <= 256
    shown = line(replace(heard, route="\x1b[2J", why="a\nb"))
    assert shown == f"{heard.at[11:23]} ?[2J     refused: a?b"


@pytest.mark.parametrize("headers", [None, v1(b"x" * 30_001)[1]], ids=["seed", "v1"])
def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(headers, listener):
    assert listener.post(b"x" * 30_001, headers) == 413
    assert listener.heard == []
    assert "over the limit" in listener.told[0][0].why


def test_half_a_surrogate_pair_is_kept_as_it_came(listener):
    body, headers = v1(b'{"error": "\\ud800"}')
    assert listener.post(body, headers) == 204
    assert listener.heard[0].payload == {"error": "\ud800"}


def test_reading_from_a_place_gives_what_came_after(listener):
    listener.post(BODY)
    since = listener.store.size
    listener.post(BODY, {"webhook-id": "2/status"})
    assert [heard.id for heard in listener.store.read(since)] == ["2/status"]


def test_a_torn_last_line_is_passed_over_and_cut_off(listener, path):
    listener.post(BODY)
    listener.writer.close()
    whole = path.read_bytes()
    for torn in (b'{"at": "2026', b"x" * 200_000):
        path.write_bytes(whole + torn)
        again = Listener(path)
        assert len(again.heard) == 1
        assert again.post(BODY) == 204
        assert again.post(BODY, {"webhook-id": "2"}) == 204
        again.writer.close()
        assert path.read_bytes().startswith(whole + b'{"at"')
        assert [heard.id for heard in again.heard] == ["1/status", "2"]


def test_one_process_writes_to_a_store(listener, path):
    listener.post(BODY)
    with pytest.raises(ConfigError, match="another listener writes"):
        Writer(Store(path)).open()


def test_a_store_that_was_moved_away_is_begun_anew(listener, path):
    listener.post(BODY)
    path.rename(path.with_suffix(".old"))
    assert listener.post(BODY, {"webhook-id": "2"}) == 204
    assert [heard.id for heard in listener.heard] == ["2"]


def test_what_cannot_be_kept_is_not_answered_well_and_may_come_again(listener, monkeypatch):
    listener.post(BODY, {"webhook-id": "0"})
    write = os.write

    def full_once(fd: int, data: bytes) -> int:
        write(fd, data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "write", full_once)
        assert listener.posts(*[("status", BODY, SEED[1])] * 2) == [503, 503]
    assert listener.post(BODY) == 204
    assert [heard.id for heard in listener.heard] == ["0", "1/status"]


def test_many_posts_share_one_write_to_the_disk(listener, monkeypatch):
    synced = []
    began, waiting, go_on = threading.Event(), threading.Event(), threading.Event()
    sync = os.fdatasync

    def slow(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 1:
            began.set()
            assert go_on.wait(20)
        sync(fd)

    class Counting(queue.SimpleQueue[Any]):
        def put(self, item: Any, *_: Any) -> None:
            super().put(item)
            if self.qsize() == 50:
                waiting.set()

    listener.writer._queue = Counting()
    monkeypatch.setattr(storage.os, "fdatasync", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(listener.post, BODY, {"webhook-id": "first"})
        assert began.wait(20)
        more = [("status", BODY, {"webhook-id": str(n)}) for n in range(50)]
        rest = pool.submit(listener.posts, *more)
        assert waiting.wait(20)
        assert not first.done()
        go_on.set()
        assert (first.result(), rest.result()) == (204, [204] * 50)
    assert len(synced) == 2
    assert len(listener.heard) == 51


HEARD = Heard("2026-11-21T10:11:12.345678+00:00", "1", "progress", True, END)


def test_a_line_says_when_what_and_of_whom():
    assert line(HEARD) == "10:11:12.345 progress success         run=r 100%"
    status = replace(HEARD, route="status", payload=FIELDS)
    assert line(status) == "10:11:12.345 status   running         run=r task=t"
    assert line(status, new=False).endswith("(repeat)")
    older = replace(HEARD, payload={"title": "failed", "run_id": "r"})
    assert "failed" in line(older)


def in_v1(state: str, name: str, **more: Any) -> list[Heard]:
    """What the sender makes of a change, as the listener keeps it."""
    made = Change("id", "state", state, name, HEARD.at, **more)
    return [
        replace(HEARD, route="events", format="v1", payload=envelope(told, max_result=1000))
        for told in messages(made, Names("d", "r", root="id"), results={"rows": 3})
    ]


def test_a_line_of_v1_says_the_same():
    status, progress = in_v1("COMPLETED", "Completed", task="t", task_run="x", progress=40)
    assert line(status) == "10:11:12.345 status   success         run=r task=t"
    assert line(progress) == "10:11:12.345 progress running         run=r task=t 40%"
    (late,) = in_v1("SCHEDULED", "Late")
    assert line(late) == "10:11:12.345 late     late            run=r"


def test_of_v1_only_the_end_of_a_run_ends_it():
    assert [check.ends(one) for one in in_v1("COMPLETED", "Completed", task="t")] == [set()]
    assert [check.ends(one) for one in in_v1("FAILED", "Failed")] == [{"r", "id"}]
    progress, results = in_v1("COMPLETED", "Completed")
    assert check.ends(progress) == {"r", "id"}
    assert check.kind(results) == "results"


@pytest.mark.parametrize(
    ("payload", "route", "ends"),
    [
        (END, "progress", {"r"}),
        ({**END, "state": "failed"}, "progress", {"r"}),
        ({**END, "state": "running"}, "progress", set()),
        ({**FIELDS, "state": "success"}, "status", set()),
        ({**END, "run": "id"}, "events", {"r", "id"}),
        ({**END, "run": "child", "parent": "root"}, "child", {"child"}),
    ],
)
def test_the_end_of_a_run_is_told_by_its_root_alone(payload, route, ends):
    watch = Watch(ends=frozenset(ends or {"r"}), quiet=True)
    watch.hear(replace(HEARD, payload=payload, route=route))
    assert (watch.missing == []) == bool(ends)


def test_expected_messages_are_counted_once_each_and_verified_alone():
    stops: list[float] = []
    watch = Watch(least=2, quiet=True, stop=stops.append)
    for heard in (HEARD, HEARD, replace(HEARD, id="2", verified=False)):
        watch.hear(heard)
    assert watch.missing == ["1 verified messages came, 2 were expected"]
    assert stops == []
    watch.hear(replace(HEARD, id="2"))
    assert (watch.missing, stops) == ([], [0])


def test_until_ended_waits_for_all_runs_and_a_moment_for_the_results():
    stops: list[float] = []
    watch = Watch(until_ended=True, quiet=True, stop=stops.append)
    watch.hear(replace(HEARD, payload=FIELDS, route="status"))
    watch.hear(replace(HEARD, payload={**END, "run_id": "other"}))
    assert stops == []
    watch.hear(HEARD)
    assert len(stops) == 1
    assert stops[0] > 0
    watch.hear(replace(HEARD, payload={"run_id": "r", "results": 1}, route="results"))
    watch.hear(replace(HEARD, payload={"run_id": "other", "results": 1}, route="results"))
    assert stops[-1] == 0


class Program:
    """`penstock listen` as a process of its own."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        store = ("--store", str(folder / "reports.jsonl"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deployments", "listen", "--port", "0", *store, *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        first = self.process.stderr.readline()  # said when it listens
        found = re.search(r"http://\S+", first)
        assert found, first + self.process.stderr.read()
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def post(self, fields: dict[str, Any], route: str = "status", message_id: str = "1") -> int:
        headers = {"webhook-id": message_id}
        return self.client.post(f"/{route}", content=seed(fields), headers=headers).status_code

    def end(self) -> tuple[int, str, str]:
        """Its exit code and what it said, once it has ended."""
        out, err = self.process.communicate(timeout=30)
        self.client.close()
        return self.process.returncode, out, err


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "key.pem").write_text(PUBLIC)
    mine: list[Program] = []

    def start(*words: str, **environment: str) -> Program:
        words = words or ("--key", str(tmp_path / "key.pem"))
        mine.append(Program(tmp_path, *words, **environment))
        return mine[-1]

    yield start
    for one in mine:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


def test_sigterm_ends_it_cleanly_and_what_came_was_told(program, path):
    mine = program()
    assert mine.post(FIELDS) == 204
    assert mine.post({}, message_id="2") == 204
    mine.process.send_signal(signal.SIGTERM)
    code, out, err = mine.end()
    assert (code, err) == (0, "")
    assert "status   running         run=r task=t" in out.splitlines()[0]
    assert len(list(Store(path).read())) == 2


def test_ctrl_c_ends_it_like_any_command(program):
    mine = program()
    mine.process.send_signal(signal.SIGINT)
    assert mine.end()[::2] == (130, "penstock: interrupted\n")


def test_it_needs_no_prefect(program, tmp_path):
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "__init__.py").write_text("raise SystemExit('imported')")
    mine = program("--key", str(tmp_path / "key.pem"), "--quiet", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert mine.post(FIELDS) == 204
    mine.process.terminate()
    assert mine.end() == (0, "", "")


def test_killed_at_any_moment_it_has_kept_what_it_answered_and_knows_it_again(program, path):
    answered: set[str] = set()
    came = threading.Semaphore(0)

    def send(mine: Program, who: int) -> None:
        with httpx.Client(base_url=mine.url, trust_env=False) as client:
            for n in range(10_000):
                name = f"{who}-{n}-{mine.process.pid}"
                try:
                    answer = client.post("/status", content=BODY, headers={"webhook-id": name})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 204
                answered.add(name)
                came.release()

    for least in (5, 20, 60):
        mine = program()
        with ThreadPoolExecutor() as pool:
            sent = [pool.submit(send, mine, who) for who in range(4)]
            assert all(came.acquire(timeout=30) for _ in range(least))
            mine.process.kill()
            for one in sent:
                one.result()
        mine.end()
    kept = [heard.id for heard in Store(path).read()]
    assert len(set(kept)) == len(kept)
    assert answered <= set(kept)
    again = program()
    for name in sorted(answered)[:20]:
        assert again.post(FIELDS, message_id=name) == 204
    assert len(list(Store(path).read())) == len(kept)


def test_it_ends_well_as_soon_as_what_was_expected_has_come(program, tmp_path):
    key = ("--key", str(tmp_path / "key.pem"))
    mine = program(*key, "--expect", "2", "--expect-run", "r", "--for", "60")
    assert [mine.post(FIELDS), mine.post(END, "progress", "2")] == [204, 204]
    assert mine.end()[::2] == (0, "")


def test_it_fails_when_the_time_is_over_and_says_what_is_missing(program, tmp_path):
    key = ("--key", str(tmp_path / "key.pem"))
    mine = program(*key, "--expect", "1", "--expect-run", "r", "--for", "0.2")
    code, _, err = mine.end()
    assert code == 1
    assert "0 verified messages came, 1 were expected" in err
    assert "no end of the run r was heard" in err


def test_it_ends_with_the_runs_it_heard_of(program, tmp_path):
    mine = program("--key", str(tmp_path / "key.pem"), "--until-ended")
    mine.post(FIELDS)
    mine.post(END, "progress", "2")
    mine.post({"dag_id": "d", "run_id": "r", "results": 1}, "results", "3")
    assert mine.end()[0] == 0


def test_keys_come_from_several_files_a_variable_or_a_jwks(program, tmp_path):
    other = pair()[1]
    (tmp_path / "other.pem").write_text(other)
    (tmp_path / "jwks.json").write_text(json.dumps(jwks([KEY])))
    files = ("--key", str(tmp_path / "other.pem"), "--key", str(tmp_path / "key.pem"))
    for words in (files, ("--variable", "K"), ("--jwks", str(tmp_path / "jwks.json"))):
        mine = program(*words, "--expect", "1", K=PUBLIC)
        assert mine.post(FIELDS) == 204
        assert mine.end()[0] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--key", "none.pem"), "--key none.pem is no file"),
        (("--variable", "NO_SUCH_KEY"), "NO_SUCH_KEY, meant to hold a key, is unset"),
        (("--jwks", "none.json"), "none.json cannot be read"),
        (("--jwks", "http://example.org/"), "fetched by https"),
        (("--key", "README.md"), "README.md holds no public key"),
        (("--jwks", "jwks.json", "--algorithm", "HS256"), "holds no secret of HS256"),
    ],
)
def test_keys_that_cannot_be_used_are_said_at_once(words, why, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["listen", "--store", str(tmp_path / "s"), "--port", "0", *words]) == 2
    assert why in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(tmp_path, capsys):
    (tmp_path / "key.pem").write_text(PUBLIC)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["--key", str(tmp_path / "key.pem"), "--store", str(tmp_path / "s")]
        assert main(["listen", "--port", port, *words]) == 2
    assert f"cannot listen on port {port}" in capsys.readouterr().err
