"""What `put` has written down survives its writer, and one courier at a time comes for it."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from blocks._changes import Change
from flows._reports.ledger import Ledger
from flows._reports.outbox import take
from tests.conftest import clean_environment, end_couriers
from tests.receiver import Receiver

ROOT = Path(__file__).parents[2]
AT = "2026-11-21T09:30:00+00:00"
PROGRAM = f"""
import fcntl, os, signal, sys, threading, time
from blocks._changes import Change
from flows._reports import outbox

def put(n, run="r"):
    outbox.put(Change(run=run, state=str(n), type="RUNNING", name="Running", at={AT!r}))
"""


class House:
    """A home of its own, and a Prefect API that is asked of runs and knows none of them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.api = Receiver()
        self.api.answer = lambda _: (404, {"content-length": "0"})
        url = f"{self.api.url}/api"
        self.place = home / "reports" / sha256(url.encode()).hexdigest()[:12]
        self.environment = {
            **clean_environment(),
            "PREFECT_API_URL": url,
            "PREFECT_HOME": str(home / "prefect"),
            "PENSTOCK_HOME": str(home),
            "PENSTOCK_COURIER_IDLE": "60",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, code: str, *before: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*before, sys.executable, "-c", PROGRAM + code],
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *before: str, **environment: str) -> str:
        """What `code` printed; it is sure to have ended well."""
        process = self.start(code, *before, **environment)
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        return out

    @contextmanager
    def without_courier(self) -> Iterator[None]:
        """Hold the lock, so that none is started."""
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / "courier.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def courier(self) -> psutil.Process:
        return psutil.Process(int((self.place / "courier.lock").read_text()))

    def written(self) -> list[list[Change]]:
        """What each writer has written."""
        found = take(self.place, {})
        return [[Change(**json.loads(line)) for line in lines] for _, lines, _, _ in found]

    def asked_for(self) -> set[str]:
        """The runs that the API was asked for."""
        return {post.path.rpartition("/")[2] for post in self.api.posts}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    mine = House(tmp_path)
    yield mine
    end_couriers(mine.home)
    mine.api.down()


def states(changes: list[Change]) -> list[str]:
    return [change.state for change in changes]


def gone(process: psutil.Process) -> None:
    """Await the end of a process that is no child of ours."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 60)[0], f"{process} is still there"
    finally:
        os.close(fd)


# Writing --------------------------------------------------------------------------------------


def test_what_was_put_is_there_though_its_writer_is_killed_at_once(house):
    with house.without_courier():
        writer = house.start("put(1); os.kill(os.getpid(), signal.SIGKILL)")
        assert writer.wait(60) == -signal.SIGKILL
        writer.communicate()
        [(_, lines, _, done)] = take(house.place, {})
        assert states(house.written()[0]) == ["1"]
        assert (len(lines), done) == (1, True)


def test_two_processes_write_side_by_side_and_each_keeps_its_order(house):
    code = """
other = os.fork()
for n in range(300): put(n)
if other:
    assert os.waitpid(other, 0)[1] == 0
else:
    os._exit(0)
"""
    with house.without_courier():
        house.run(code)
        assert [states(changes) for changes in house.written()] == [
            [str(n) for n in range(300)]
        ] * 2


def test_threads_of_one_process_share_its_file_and_no_line_is_torn(house):
    code = """
def many(first):
    for n in range(first, first + 200): put(n)
threads = [threading.Thread(target=many, args=[200 * t]) for t in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    with house.without_courier():
        house.run(code)
        [changes] = house.written()
    assert sorted(states(changes), key=int) == [str(n) for n in range(1000)]


def test_a_forked_process_has_a_file_of_its_own(house):
    code = "put(1)\nif os.fork() == 0:\n    put(2)\n    os._exit(0)\nos.wait(); put(3)"
    with house.without_courier():
        house.run(code)
        assert sorted(states(changes) for changes in house.written()) == [["1", "3"], ["2"]]


def test_a_line_that_is_half_there_waits_for_its_other_half_and_is_dropped_with_its_writer(house):
    line = Change("r", "1", "RUNNING", "Running", AT).as_line()
    outbox = house.place / "outbox"
    outbox.mkdir(parents=True)
    with (outbox / "7-x.jsonl").open("ab", buffering=0) as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        writer.write(line + line[:10])
        [(path, lines, offset, done)] = take(house.place, {})
        assert (lines, offset, done) == ([line.strip()], len(line), False)
        writer.write(line[10:])
        [(_, lines, offset, done)] = take(house.place, {path.name: offset})
        assert (lines, offset, done) == ([line.strip()], 2 * len(line), False)
        writer.write(line[:10])
    [(_, lines, _, done)] = take(house.place, {path.name: offset})
    assert (lines, done) == ([], True)


def test_a_file_that_is_just_being_made_is_not_taken_for_one_left_behind(house):
    code = "for n in range(150):\n    outbox._own_file.cache_clear()\n    put(n)"
    seen = []
    with house.without_courier():
        writer = house.start(code, PENSTOCK_COURIER_IDLE="0")
        while True:
            ended = writer.poll() is not None
            for path, lines, _, done in take(house.place, {}):
                if done or ended:
                    seen += [json.loads(line)["state"] for line in lines]
                    path.unlink()
            if ended:
                break
        _, err = writer.communicate()
        assert writer.returncode == 0, err
    assert sorted(seen, key=int) == [str(n) for n in range(150)]


def test_lines_of_every_size_are_read_whole_in_order_and_survive_a_kill(house):
    code = """
for n in range(400):
    put(n, "r" * (n * 7))
put("last", "r" * (3 << 20))
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with house.without_courier():
        writer = house.start(code)
        said, _ = writer.communicate(timeout=60)
        assert (said, writer.returncode) == ("written\n", -signal.SIGKILL)
        [changes] = house.written()
    assert states(changes) == [*map(str, range(400)), "last"]
    assert [len(change.run) for change in changes] == [*range(0, 2800, 7), 3 << 20]


def test_who_has_no_time_to_ring_is_heard_all_the_same_though_its_process_ends_at_once(house):
    run = str(uuid4())
    change = f'Change(run="{run}", state="1", type="RUNNING", name="Running", at={AT!r})'
    house.run(f"outbox.put({change}, soon=True)")
    house.api.wait(lambda: run in house.asked_for(), seconds=60)


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="needs user namespaces",
)
def test_on_a_full_disk_put_says_so_leaves_no_half_a_line_and_goes_on_when_there_is_room(house):
    code = """
place = outbox.folder()
lock = open(place / "courier.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
put(0)
(place / "fill").write_bytes(b"x" * 40960)
kept = 1
try:
    while True:
        put(kept, "r" * 997)
        kept += 1
except OSError as error:
    print(kept, error)
(place / "fill").unlink()
put(kept)
[(_, lines, _, _)] = outbox.take(place, {})
print(len(lines), *{line[:1] + line[-1:] for line in lines})
"""
    house.place.mkdir(parents=True)
    small = f'mount -t tmpfs -o size=64k small {house.place} && exec "$0" "$@"'
    said, found = house.run(code, "unshare", "-rm", "sh", "-c", small).splitlines()
    kept = int(said.split()[0])
    assert "No space left" in said
    assert kept > 5
    assert found == f"{kept + 1} b'{{}}'"


FLUSH = """
from blocks._messages import Message, Names
from flows._reports.ledger import Ledger, Made
run = "0a6f0000-0000-0000-0000-000000000001"
place = outbox.folder()
names = Names("d", run, root=run)
Ledger(place).know(names, [])
Ledger(place).resolve([Made(0, run, [Message("m", "status", "running", names)], [], False)])
with open(place / "courier.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    put(1, run)
    for seconds in ("1", "0"):
        os.environ["PENSTOCK_FLUSH"] = seconds
        began = time.monotonic()
        outbox.flush(run)
        print(time.monotonic() - began)
put(2, run)
os.environ["PENSTOCK_FLUSH"] = "1000"
outbox.flush(run)
print(len(list(outbox.take(place, Ledger(place).offsets()))[0][1]))
"""


def test_where_the_machine_ends_with_the_run_its_last_report_is_waited_for(house):
    in_vain, not_at_all, left = house.run(FLUSH).split()
    assert float(in_vain) >= 1  # nobody came for it
    assert float(not_at_all) < 0.5
    assert left == "0"


# The courier ----------------------------------------------------------------------------------


def test_five_processes_at_once_start_one_courier(house):
    runs = [str(uuid4()) for _ in range(5)]
    code = f"""
ready, go = os.pipe()
for run in {runs}:
    if os.fork() == 0:
        os.close(go)
        os.read(ready, 1)  # until all of them are there
        put(1, run)
        os._exit(len(outbox._started))
os.close(go)
print(sum(os.waitstatus_to_exitcode(os.wait()[1]) for _ in {runs}))
"""
    assert house.run(code) == "1\n"
    house.api.wait(lambda: house.asked_for() >= set(runs), seconds=60)
    mine = [
        p for p in psutil.process_iter(["cmdline"]) if str(house.place) in (p.info["cmdline"] or [])
    ]
    assert mine == [house.courier()]


def test_a_courier_has_nothing_of_its_starter_but_its_lock_and_its_log(house, tmp_path):
    code = f"""
theirs = os.open({str(tmp_path / "theirs")!r}, os.O_RDWR | os.O_CREAT)
os.set_inheritable(theirs, True)
put(1, "{uuid4()}")
"""
    secret = {"PREFECT__FLOW_RUN_ID": "r", "PENSTOCK_RUN": "r", "PENSTOCK_JOB": "j", "MINE": "yes"}
    house.run(code, **secret)
    house.api.wait(seconds=60)
    courier = house.courier()
    environment = courier.environ()
    assert environment["MINE"] == "yes"
    assert [
        n for n in environment if n.startswith(("PREFECT__", "PENSTOCK_RUN", "PENSTOCK_JOB"))
    ] == []
    assert os.getsid(courier.pid) == courier.pid
    held = {}
    for fd in Path(f"/proc/{courier.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it is at work
            held[fd.name] = os.readlink(fd)
    log, null = str(house.place / "courier.log"), "/dev/null"
    assert (held["0"], held["1"], held["2"]) == (null, log, log)
    files = {path for path in held.values() if path.startswith("/") and path != null}
    assert {Path(path).name.partition("-")[0] for path in files} <= {
        "courier.log",
        "courier.lock",
        "bell",
        "ledger.db",
    }


def test_a_courier_that_idles_ends_and_the_next_put_starts_another(house):
    first, second = str(uuid4()), str(uuid4())
    code = f"""
put(1, "{first}")
outbox._started[0].wait(60)
put(2, "{second}")
print(len(outbox._started))
"""
    assert house.run(code, PENSTOCK_COURIER_IDLE="0.2") == "1\n"  # the first was waited for
    house.api.wait(lambda: house.asked_for() == {first, second}, seconds=60)
    gone(house.courier())
    assert Ledger(house.place).idle


@pytest.mark.full
def test_nothing_is_missed_that_comes_while_a_courier_ends(house):
    runs = [str(uuid4()) for _ in range(300)]
    code = f"""
for run in {runs}:
    put(run, run)
    time.sleep(0.02)  # spread over the ends of several couriers
print(len(outbox._started))
"""
    house.run(code, PENSTOCK_COURIER_IDLE="0")
    house.api.wait(lambda: house.asked_for() == set(runs), seconds=60)


def test_a_courier_sees_at_its_end_what_came_after_its_last_look(house):
    with house.without_courier():
        house.run("put(1)")
        missed = "from pathlib import Path; from flows._reports.courier import Courier; "
        look = f"print(Courier(Path({str(house.place)!r})).missed())"
        assert house.run(missed + look) == "True\n"


def test_a_courier_that_is_killed_is_followed_by_another_and_nothing_is_lost(house):
    first, second = str(uuid4()), str(uuid4())
    house.api.answer = lambda _: (500, {"content-length": "0"})
    house.run(f'put(1, "{first}")')
    house.api.wait(seconds=60)
    killed = house.courier()
    killed.kill()
    gone(killed)
    house.api.answer = lambda _: (404, {"content-length": "0"})
    house.api.posts.clear()
    house.run(f'put(2, "{second}")')
    house.api.wait(lambda: house.asked_for() == {first, second}, seconds=60)
    assert house.courier() != killed


def test_a_courier_told_to_end_ends_and_what_it_had_is_kept_for_the_next(house):
    run = str(uuid4())
    house.api.answer = lambda _: (500, {"content-length": "0"})
    house.run(f'put(1, "{run}")')
    house.api.wait(seconds=60)
    ended = house.courier()
    ended.terminate()
    gone(ended)
    [(_, change)] = Ledger(house.place).changes()
    assert change.run == run


@pytest.mark.full
def test_a_server_that_is_away_is_asked_less_and_less_often(house):
    code = """
from flows._reports.courier import Courier
courier = Courier(outbox.folder())
courier._take_in()
for seconds in (0, 40, 1000):
    courier._waits_since = time.monotonic() - seconds
    courier._ask()
    print(round(courier._ask_again - time.monotonic()))
"""
    with house.without_courier():
        house.run(f'put(1, "{uuid4()}")')
        house.api.down()
        first, then, last = map(int, house.run(code).split())
    assert (first, last) == (5, 60)
    assert 20 <= then <= 40  # half of the time it was away, which the asking itself adds to


@pytest.mark.full
def test_a_courier_whose_server_is_gone_for_good_ends_and_keeps_what_it_has(house):
    runs = [str(uuid4()) for _ in range(3)]
    house.api.down()
    code = f"""
for run in {runs}:
    put(1, run)
print(outbox._started[0].wait(60))
"""
    assert house.run(code, PENSTOCK_COURIER_PATIENCE="0.0005") == "0\n"  # hours
    assert [change.run for _, change in Ledger(house.place).changes()] == runs
    log = (house.place / "courier.log").read_text()
    assert log.count(" waits: ") == 1
    assert log.count("kept for the next courier") == 1
    house.api.up()
    house.run(f'put(2, "{runs[0]}")')
    house.api.wait(lambda: house.asked_for() == set(runs), seconds=60)
