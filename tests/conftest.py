"""Fixtures shared by all tests, and by all processes that run them: one installation is enough."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

from deployments.listener.store import Heard, Store
from flows._reports.ledger import Ledger

CHECKOUT = Path(__file__).parent.parent
LISTENER = "report-endpoint/listener"


def clean_environment() -> dict[str, str]:
    """The environment of a newcomer: nothing of Prefect's, Java's or ours."""
    drop = ("PREFECT_", "PENSTOCK_", "JAVA_HOME", "SPARK_")
    return {n: v for n, v in os.environ.items() if not n.startswith(drop)}


def pytest_configure(config: pytest.Config) -> None:
    """Before Prefect is imported: this process, too, is a client of the session's installation.

    Prefect's background threads read the settings of the process, never those of a context. The
    processes that xdist starts inherit what is chosen here.
    """
    # A shell's background job ignores Ctrl-C, and so would all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    newcomer = clean_environment()
    os.environ.clear()
    os.environ.update(newcomer)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ["PREFECT_HOME"] = f"{tempfile.mkdtemp(prefix='penstock-tests-')}/prefect"
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Take the installation down if a test, in whichever process, brought it up."""
    if hasattr(config, "workerinput"):
        return
    mine = Installation.of_session()
    end_couriers(mine.home)
    if (mine.home / "services.json").exists():
        done = mine.command("down", "--kill")
        assert done.code == 0, done.out + done.err
    shutil.rmtree(mine.home)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First the tests that must be alone, in one process, beside those that need no installation.

    So nobody waits for them, nor for the installation's start.
    """
    turns = {}
    for path, tests in groupby(items, key=lambda item: item.path):
        needs = any("everything_up" in getattr(test, "fixturenames", ()) for test in tests)
        turns[path] = 2 if needs else 1
    alone = {item.nodeid for item in items if item.get_closest_marker("alone")}
    items.sort(key=lambda item: 0 if item.nodeid in alone else turns[item.path])
    home = Installation.of_session().home
    with locked(home / "alone.lock"):
        (home / "alone.json").write_text(json.dumps(sorted(alone)))


class AloneInOneProcess(LoadFileScheduling):
    """Files are dealt out whole, but for their tests that must be alone: all of those go to one.

    xdist's own groups are lost with pytest 9.2, so the processes that collect write them down.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "alone" if nodeid in self._alone else str(super()._split_scope(nodeid))

    @cached_property
    def _alone(self) -> set[str]:
        return set(json.loads((Installation.of_session().home / "alone.json").read_text()))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> AloneInOneProcess:
    return AloneInOneProcess(config, log)


@dataclass
class Installation:
    """A real `penstock up` with a home of its own."""

    home: Path
    environment: dict[str, str]
    api_url: str
    last: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_session(cls) -> "Installation":
        """The one that all tests of a session share, whichever process they run in."""
        home = Path(os.environ["PREFECT_HOME"]).parent
        environment = {**clean_environment(), "PENSTOCK_HOME": str(home)}
        return cls(home, environment, os.environ["PREFECT_API_URL"])

    def command(self, *words: str, timeout: float = 240, **environment: str) -> "Done":
        """Run `penstock WORDS` as a user would."""
        done = subprocess.run(
            [sys.executable, "-m", "deployments", *words],
            cwd=CHECKOUT,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(
        self, deployment: str, parameters: dict[str, Any], *words: str, **options: Any
    ) -> "Done":
        """`penstock run`; what it found out is in `last` then."""
        with tempfile.NamedTemporaryFile("r", suffix=".json") as summary:
            words = ("--parameters", json.dumps(parameters), "--json", summary.name, *words)
            done = self.command("run", deployment, *words, **options)
            self.last = json.load(summary)
        return done

    @property
    def store(self) -> Store:
        return Store(self.home / "listener" / "reports.jsonl")

    def drain(self, seconds: float = 60) -> None:
        """Await that the listener has answered to every report that is on disk now."""
        deadline = time.monotonic() + seconds
        for place in self.home.glob("reports/*"):
            written = {  # what follows the lines is room for more
                path.name: len(path.read_bytes().rstrip(b"\0"))
                for path in place.glob("outbox/*.jsonl")
            }
            ledger = Ledger(place)
            while not all(
                ledger.offsets().get(name, 0) >= size or not (place / "outbox" / name).exists()
                for name, size in written.items()
            ):
                _not_after(deadline, f"{place}: the outbox is not read")
            changes = {n for n, _ in ledger.changes(1_000_000)}
            while changes & {n for n, _ in ledger.changes(1_000_000)}:
                _not_after(deadline, f"{place}: changes wait")
            where = "WHERE status = 'waiting' AND endpoint = ?"
            waiting = {one.n for one in ledger.find(where, [LISTENER])}
            while waiting & {one.n for one in ledger.find(where, [LISTENER])}:
                _not_after(deadline, f"{place}: the listener has not answered")
            ledger.close()

    def heard(self, run_id: str) -> list[Heard]:
        """What the listener verified about a run, once it has all there is by now."""
        self.drain()
        return [h for h in self.store.read() if h.payload and h.payload["run_id"] == run_id]

    def told(self, run_id: object, route: str = "status") -> list[dict[str, Any]]:
        """The fields of what the listener verified about a run, in order."""
        return [h.payload for h in self.heard(str(run_id)) if h.route == route and h.payload]

    def words(self, run_id: object) -> list[tuple[str, str]]:
        """The states of a run's tasks as they were told: (task_id, state)."""
        return [(fields["task_id"], fields["state"]) for fields in self.told(run_id)]


@dataclass
class Done:
    code: int
    out: str
    err: str


def _not_after(deadline: float, what: str) -> None:
    assert time.monotonic() < deadline, what
    time.sleep(0.05)  # another process sends us no event


def end_couriers(home: Path) -> None:
    """End the couriers of a home, each known by its own lock."""
    for path in home.glob("reports/*/courier.lock"):
        with path.open() as lock:
            while _held(lock):
                pid = path.read_text()
                with suppress(psutil.Error):
                    if pid and str(path.parent) in psutil.Process(int(pid)).cmdline():
                        psutil.Process(int(pid)).kill()
                time.sleep(0.05)  # it is none of our children, and may not have said its PID yet


def _held(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock between the processes that run tests; `how` is fcntl's."""
    with path.open("w") as file:
        fcntl.flock(file, how)
        yield


@pytest.fixture(scope="session")
def everything_up() -> Installation:
    """One installation for all tests of a session: a start costs half a minute."""
    mine = Installation.of_session()
    with locked(mine.home / "up.lock"):
        if mine.command("status", "--quiet").code:
            done = mine.command("up", "--port", mine.api_url.split(":")[2].removesuffix("/api"))
            assert done.code == 0, done.out + done.err
    return mine


@pytest.fixture
def installation(
    everything_up: Installation, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """The session's installation, with other tests at the same time; alone for those marked so."""
    gate, room = (everything_up.home / f"{name}.lock" for name in ("gate", "room"))
    alone = request.node.get_closest_marker("alone")
    with ExitStack() as stay:
        with locked(gate):  # who waits to be alone lets nobody else in
            stay.enter_context(locked(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield everything_up


@pytest.fixture
def api(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the session's server; flows called in a test run against it, too."""
    from prefect.client.orchestration import get_client

    monkeypatch.setenv("PENSTOCK_HOME", str(installation.home))
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def echo(tmp_path: Path) -> dict[str, str]:
    """The parameters of a quick run of the deployment `cwl`."""
    (tmp_path / "echo.cwl").write_text(
        "{cwlVersion: v1.2, class: CommandLineTool, inputs: [], baseCommand: [echo, hello], "
        "stdout: out, outputs: {out: stdout}}"
    )
    return {"workflow": str(tmp_path / "echo.cwl")}


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for what another process does: poll until it is truthy, fail after a while."""

    def wait(look: Callable[[], Any], *, seconds: float = 20, every: float = 0.1) -> Any:
        deadline = time.monotonic() + seconds
        while not (seen := look()):
            assert time.monotonic() < deadline, f"not seen within {seconds} s"
            time.sleep(every)  # another process sends us no event
        return seen

    return wait
