"""The place `process`: the contract of flows/_run/job.py, and that nothing outlives the engine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from flows._run import record as records
from flows._run.guard import running
from flows._run.job import Job, Outcome
from flows._run.process import ProcessPlace, living, tail

TREE = Path(__file__).parent.parent / "programs" / "tree.py"
RUN = f"run-{os.getpid()}"  # a job's processes are found by its key: nobody else may have it
KEY = f"{RUN}/sort/0"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[ProcessPlace]:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    place = ProcessPlace()
    yield place
    place.close()


def job(*argv: str, key: str = KEY, **options) -> Job:
    environment = {"PATH": os.environ["PATH"]}
    return Job(key, list(argv), environment, cwd=Path.cwd(), root=RUN, **options)


def shell(script: str, **options) -> Job:
    return job("sh", "-c", script, **options)


def tree_pids(place, record) -> list[int]:
    """The program's pid and its grandchild's, once both are there."""
    seen = threading.Event()
    lines: list[str] = []

    class Enough(Exception):
        pass

    def on_line(line):
        lines.append(line)
        seen.set()
        raise Enough

    with pytest.raises(Enough):
        place.watch(record, on_line)
    return [record.pid, int(lines[0])]


def alive(pids: list[int]) -> list[int]:
    return [
        pid
        for pid in pids
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


def test_a_program_runs_and_its_lines_come_as_they_are_written(place):
    lines: list[str] = []
    record = place.start(shell("echo one; echo two >&2; printf three; exit 3"))
    outcome = place.watch(record, lines.append)
    assert (outcome.code, outcome.ok, outcome.why()) == (3, False, "exited with 3")
    assert lines == ["one", "two", "three"]
    assert list(place.logs(record)) == tail(record) == lines


def test_the_outcome_tells_signal_memory_and_cpu(place):
    code = "import os; data = bytearray(60_000_000); sum(range(3_000_000)); os.kill(os.getpid(), 9)"
    outcome = place.watch(place.start(job(sys.executable, "-c", code)))
    assert outcome.code is None
    assert outcome.signal == "SIGKILL"
    assert outcome.max_rss > 60_000_000
    assert outcome.cpu > 0.01
    assert "out of memory?" in outcome.why()


def test_a_program_that_is_not_there_is_one_clear_error(place):
    with pytest.raises(Exception, match=r"could not be started.*no-such-program"):
        place.start(job("/no-such-program"))


def test_the_record_is_written_before_anything_waits_and_holds_the_outcome_after(place, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    record = place.start(shell(f"read go < '{gate}'; exit 0"))
    on_disk = records.latest(RUN, KEY)
    assert on_disk == record
    assert record.pid
    gate.write_text("go\n")
    place.watch(record)
    ended = records.latest(RUN, KEY)
    assert ended.outcome["code"] == 0
    assert ended.gone_at


def test_a_key_that_runs_already_is_adopted_not_started_twice(place):
    first = place.start(shell("sleep 30"))
    assert place.start(shell("sleep 30")) == first
    place.stop(first)


def test_only_a_judged_failure_raises_the_generation(place):
    first = place.start(shell("exit 1"))
    place.watch(first)
    assert place.start(shell("exit 1")).generation == 1
    records.judge(RUN, [KEY], "failed")
    second = place.start(shell("exit 0"))
    assert second.generation == 2
    assert place.watch(second).ok


def test_a_time_limit_ends_the_whole_tree_and_says_so(place):
    record = place.start(job(sys.executable, str(TREE), time_limit=1.5, grace=0.3))
    pids = tree_pids(place, record)
    outcome = place.watch(record)
    assert outcome.timed_out
    assert "time limit" in outcome.why()
    assert not alive(pids)


def test_stop_leaves_nothing_of_a_tree_that_ignores_sigterm_and_left_the_session(place):
    record = place.start(job(sys.executable, str(TREE), grace=0.3))
    pids = tree_pids(place, record)
    assert alive(pids) == pids
    stopped = place.stop(record)
    assert Outcome(**stopped.outcome).stopped
    assert stopped.gone_at
    assert not alive(pids)


def test_what_a_program_leaves_behind_is_ended_before_its_end_is_told(place):
    record = place.start(shell("setsid sleep 600 & exit 0"))
    assert place.watch(record).code == 0
    assert not living(record)


def test_a_program_never_holds_a_descriptor_of_the_engine(place):
    record = place.start(shell("ls -l /proc/self/fd"))
    lines: list[str] = []
    place.watch(record, lines.append)
    targets = {line.partition(" -> ")[2] for line in lines if " -> " in line}
    log = f"{record.folder}/log"
    assert {t for t in targets if not t.startswith("/proc/")} == {"/dev/null", log}


def test_a_program_starts_with_the_signals_of_any_other(place):
    code = "import signal as s; print(s.getsignal(s.SIGINT) is s.default_int_handler,"
    code += " s.getsignal(s.SIGHUP) == s.SIG_DFL, s.getsignal(s.SIGTERM) == s.SIG_DFL)"
    lines: list[str] = []
    place.watch(place.start(job(sys.executable, "-c", code)), lines.append)
    assert lines == ["True True True"]


def test_hundreds_of_programs_at_once_all_end_as_they_did(place):
    started = [place.start(shell(f"exit {n % 7}", key=f"{RUN}/many/{n}")) for n in range(200)]
    assert [place.watch(r).code for r in started] == [n % 7 for n in range(200)]


# A new process, with nothing in common but what was written down.

ENGINE = """
import sys
from pathlib import Path
from flows._run.job import Job
from flows._run.process import PROCESS
run, key, *argv = sys.argv[1:]
import os
job = Job(key, argv, {"PATH": os.environ["PATH"]}, cwd=Path.cwd(), root=run, grace=0.3)
record = PROCESS.start(job)
print(record.pid, record.shim_pid, flush=True)
PROCESS.watch(record, lambda line: print(line, flush=True))
"""

OTHER = """
import json, sys
from dataclasses import asdict
from flows._run.job import Outcome
from flows._run.process import PROCESS
run, key, what = sys.argv[1:]
record = PROCESS.find(run, key)
if what == "stop":
    record = PROCESS.stop(record)
    print(json.dumps([record.outcome, record.gone_at]))
elif what == "watch":
    print(json.dumps(asdict(PROCESS.watch(record))))
else:
    print(json.dumps(list(PROCESS.logs(record))))
"""


@pytest.fixture
def engine(tmp_path):
    """Starts an engine of its own, which starts a program; gives it and the pids of all."""
    started: list[subprocess.Popen[str]] = []

    def start(*argv: str) -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", ENGINE, RUN, KEY, *argv],
            env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        pids = [int(word) for word in process.stdout.readline().split()]
        pids.append(int(process.stdout.readline()))  # the program says who its grandchild is
        return process, pids

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def other(tmp_path, what: str):
    done = subprocess.run(
        [sys.executable, "-c", OTHER, RUN, KEY, what],
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_another_process_finds_reads_and_stops_what_was_started(engine, tmp_path):
    process, pids = engine(sys.executable, str(TREE))
    assert other(tmp_path, "logs") == [str(pids[-1])]
    outcome, gone_at = other(tmp_path, "stop")
    assert not alive([pids[0], pids[-1]])
    assert outcome["signal"] == "SIGKILL"
    assert gone_at
    process.wait(timeout=10)


def test_another_process_sees_how_it_ended(engine, tmp_path):
    process, _ = engine("sh", "-c", "echo 1; sleep 1; exit 5")
    assert other(tmp_path, "watch")["code"] == 5
    process.wait(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_nothing_outlives_an_engine_that_is_killed(engine, eventually, number):
    process, pids = engine(sys.executable, str(TREE))
    assert alive(pids) == pids
    process.send_signal(number)
    process.wait()
    eventually(lambda: not alive(pids), seconds=10)


def test_the_program_dies_with_the_shim_too(engine, eventually):
    _, (program, shim, _) = engine("sh", "-c", "echo 1; sleep 600")
    os.kill(shim, signal.SIGKILL)
    eventually(lambda: not alive([program]), seconds=5)


def test_an_engine_whose_shim_is_killed_is_told_and_can_go_on(place):
    record = place.start(shell("setsid sleep 600 & echo $!; exec sleep 600", grace=0.3))
    pids = tree_pids(place, record)
    os.kill(record.shim_pid, signal.SIGKILL)
    outcome = place.watch(record)
    assert (outcome.code, outcome.ok) == (None, False)
    assert "nobody saw its end" in outcome.why()
    assert not alive(pids)
    assert place.watch(place.start(shell("exit 0", key=f"{RUN}/next/0"))).ok


def test_a_root_that_ends_takes_nothing_of_another_root_of_its_process_along(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr("flows._run.guard.PROCESS", place)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    started, ended = threading.Event(), threading.Event()

    def quick():
        with running() as run:
            started.wait(10)
            assert place.watch(place.start(Job(f"{run.id}/a/0", ["true"], {}, tmp_path, run.id))).ok
        ended.set()

    def patient():
        with running() as run:
            argv = ["sh", "-c", f"read go < '{gate}'"]
            record = place.start(Job(f"{run.id}/b/0", argv, {}, tmp_path, run.id))
            started.set()
            ended.wait(10)
            gate.write_text("go\n")
            return place.watch(record)

    with ThreadPoolExecutor() as pool:
        outcome = pool.submit(patient)
        pool.submit(quick).result()
    assert outcome.result().ok


def test_many_threads_may_watch_and_stop_what_a_killed_shim_started(place):
    record = place.start(shell("sleep 600", grace=0.3))
    os.kill(record.shim_pid, signal.SIGKILL)
    with ThreadPoolExecutor(8) as pool:
        watching = [pool.submit(place.watch, record) for _ in range(4)]
        stopping = [pool.submit(place.stop_all, RUN) for _ in range(4)]
    assert {one.result().code for one in watching} == {None}
    assert [one.result() for one in stopping] == [None] * 4


def test_a_program_that_ended_in_time_is_not_timed_out_by_what_it_left(place):
    stubborn = "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & exit 0"
    outcome = place.watch(place.start(shell(stubborn, time_limit=0.5, grace=1.5)))
    assert (outcome.code, outcome.timed_out, outcome.ok) == (0, False, True)


OF_ANOTHER_USER = "setpriv --reuid 65534 --clear-groups"
ONCE_IT_IS = "until grep -q '^Uid:.65534' /proc/$!/status; do :; done"
# Root may signal anybody, unless it has lost the right to.
LIKE_A_USER = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"]
ENGINES_END = f"""{ENGINE}
import json
from dataclasses import asdict
from flows._run.process import living, _stop_from_record
print(json.dumps([asdict(PROCESS.watch(record)), sorted(_stop_from_record(record))]))
PROCESS.close()
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv (util-linux)"
)
@pytest.mark.parametrize(
    ("script", "code"),
    [
        (f"{OF_ANOTHER_USER} sleep 60 & echo $!; {ONCE_IT_IS}; exit 0", 0),
        (f"{OF_ANOTHER_USER} sleep 60 & echo $!; {ONCE_IT_IS}; setsid sleep 600 & exit 3", 3),
    ],
)
def test_a_process_of_another_user_is_told_as_left_and_ends_no_supervision(tmp_path, script, code):
    done = subprocess.run(
        [*LIKE_A_USER, sys.executable, "-c", ENGINES_END, RUN, KEY, "sh", "-c", script],
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    pid = int(done.stdout.splitlines()[1])
    try:
        assert done.returncode == 0, done.stderr
        outcome, left = json.loads(done.stdout.splitlines()[-1])
        assert (outcome["code"], outcome["left"], left) == (code, [pid], [pid])
        assert records_of(tmp_path)[0]["outcome"]["left"] == [pid]
        assert alive([pid]) == [pid]
    finally:
        os.kill(pid, signal.SIGKILL)


def records_of(home):
    return [json.loads(path.read_text()) for path in home.glob("runs/*/*/ended.json")]
