"""Fixtures shared by all tests."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deployments.listener.store import Heard, Store

CHECKOUT = Path(__file__).parent.parent


def clean_environment() -> dict[str, str]:
    """The environment of a newcomer: nothing of Prefect's, Java's or ours."""
    drop = ("PREFECT_", "PENSTOCK_", "JAVA_HOME", "SPARK_")
    return {n: v for n, v in os.environ.items() if not n.startswith(drop)}


def pytest_configure(config: pytest.Config) -> None:
    """Before Prefect is imported: this process, too, is a client of the session's installation.

    Prefect's background threads read the settings of the process, never those of a context.
    """
    newcomer = clean_environment()
    os.environ.clear()
    os.environ.update(newcomer)
    home = tempfile.mkdtemp(prefix="penstock-tests-")
    config.stash[HOME] = Path(home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        config.stash[PORT] = probe.getsockname()[1]
    os.environ["PREFECT_HOME"] = f"{home}/prefect"
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{config.stash[PORT]}/api"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"


HOME = pytest.StashKey[Path]()
PORT = pytest.StashKey[int]()


@dataclass
class Installation:
    """A real `penstock up` with a home of its own."""

    home: Path
    environment: dict[str, str]
    api_url: str = ""
    last: dict[str, Any] = field(default_factory=dict)

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
        """`penstock run`; what it wrote is in `last` then."""
        done = self.command(
            "run", deployment, "--parameters", json.dumps(parameters), *words, **options
        )  # fmt: skip
        self.last = json.loads((self.home / "last-run.json").read_text())
        return done

    @property
    def store(self) -> Store:
        return Store(self.home / "listener" / "reports.jsonl")

    def heard(self, run_id: str) -> list[Heard]:
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


@pytest.fixture(scope="session")
def installation(pytestconfig: pytest.Config) -> Iterator[Installation]:
    """One installation for all tests of a session: a start costs half a minute."""
    home, port = pytestconfig.stash[HOME], pytestconfig.stash[PORT]
    mine = Installation(home, {**clean_environment(), "PENSTOCK_HOME": str(home)})
    mine.api_url = f"http://127.0.0.1:{port}/api"
    done = mine.command("up", "--port", str(port))
    assert done.code == 0, done.out + done.err
    yield mine
    assert mine.command("down", "--kill").code == 0
    shutil.rmtree(home)


@pytest.fixture
def api(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of the session's server; flows called in a test run against it, too."""
    from prefect.client.orchestration import get_client

    monkeypatch.setenv("PENSTOCK_HOME", str(installation.home))
    with get_client(sync_client=True) as client:
        yield client


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
