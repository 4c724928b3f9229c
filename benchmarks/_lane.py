"""Rounds of kills, one after the other: `python -m benchmarks._lane HOME TARGET...`.

    up ──► run ──► tasks open ──► SIGKILL ──► started again ──► run ended ──► judged
One line of JSON for each round, on standard output. An installation of its own at HOME; with
PENSTOCK_OUTBOX=off in its environment it has no relay either.
"""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import UUID

import psutil

from benchmarks._lab import couriers, installation, wait_until
from deployments.local.service import is_free

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

SERVICES = ("worker", "relay", "listener", "server")
TARGETS = ("engine", "courier", *SERVICES)
TRIES = 3  # of a round whose kill fell when no task was open
LATEST = 2.5  # seconds between the first open task and the kill, at most
RESTART = 2.0  # seconds after which a service is started again, as a supervisor would
END, TOLD, GONE = 100.0, 60.0, 20.0  # seconds until a run has ended, is told of, has left nothing
ROWS = 4.0  # seconds after which the API has the rows of a run's last tasks


@dataclass
class Round:
    """One run and the kill in it."""

    target: str
    run: str = ""
    hit: bool = False
    state: str = ""
    why: str = ""
    swept: bool = False
    again: bool = (
        False  # whether it was told again by hand, as `redeliver` would some minutes later
    )
    expected: int = 0
    lost: list[str] = field(default_factory=list)
    forged: int = 0
    unexplained: int = 0
    failed: bool = False  # it did not end as it should with this target
    terminal_missing: bool = False
    progress_fell: bool = False
    left_alive: list[Any] = field(default_factory=list)
    seconds: float = 0.0


class Lane:
    """What a lane needs of its installation, which is up."""

    def __init__(self, home: Path, port: int) -> None:
        from prefect.client.orchestration import get_client
        from prefect.deployments.runner import RunnerDeployment

        from deployments.listener.store import Store
        from deployments.local.server import POOL

        self.home, self._port = home, port
        self.off = os.environ.get("PENSTOCK_OUTBOX") == "off"
        self.client: SyncPrefectClient = get_client(sync_client=True).__enter__()
        self.store = Store(home / "listener" / "reports.jsonl")
        deployment = RunnerDeployment.from_entrypoint(
            "benchmarks/_victims.py:victims",
            name="victims",
            work_pool_name=POOL,
            job_variables={"stream_output": False},
        ).apply()
        assert isinstance(deployment, UUID)  # noqa: S101 - for the type checker alone
        self._deployment = deployment
        self._listener_port = int((home / "ports" / "listener").read_text())
        self.mend()

    def trigger(self, **parameters: Any) -> "FlowRun":
        effects = str(self.home / "effects")
        return self.client.create_flow_run_from_deployment(
            self._deployment, parameters={"effects": effects, **parameters}
        )

    def open_tasks(self, run: "FlowRun") -> list[int]:
        """The pids of the programs that the run has now."""
        from flows._run import record

        return [
            r.pid
            for r in record.of_run(str(run.id))
            if r.pid and not r.gone_at and psutil.pid_exists(r.pid)
        ]

    def processes(self, target: str, run: "FlowRun") -> list[psutil.Process]:
        """What is killed: for a server all of it, for a worker never the runs it has started."""
        from deployments.local import service
        from flows._run.engine import engine_of

        with suppress(psutil.NoSuchProcess):
            if target == "courier":
                return couriers(self.home)
            if target == "engine":
                engine = engine_of(str(run.id))
                return [psutil.Process(engine.pid)] if engine and engine.alive else []
            if not (known := service.known().get(target)):
                return []
            process = psutil.Process(known.pid)
            return [process, *(process.children(recursive=True) if target == "server" else [])]
        return []

    def kill(self, target: str, run: "FlowRun") -> bool:
        """Whether there was something to kill, while the run had tasks open."""
        processes = self.processes(target, run)
        if not processes or not self.open_tasks(run):
            return False
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(TimeoutError):
            wait_until(lambda: not any(map(_lives, processes)), 15, target, every=0.02)
        if target in ("server", "listener"):
            # A zombie's last thread may still hold it, and `up` would choose another.
            port = self._port if target == "server" else self._listener_port
            wait_until(lambda: is_free(port), 30, f"port {port}", every=0.02)
        return True

    def mend(self) -> None:
        """Start what is not there; what lives is left alone."""
        from deployments.local import service
        from deployments.local.up import started

        with started(port=self._port):
            if self.off and (relay := service.known().get("relay")):
                service.stop(relay)

    def sweep(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "deployments", "sweep"], check=True, stdout=sys.stderr
        )

    def ended(self, run: "FlowRun") -> "FlowRun | None":
        now = self.client.read_flow_run(run.id)
        return now if now.state and now.state.is_final() else None

    def judge(self, one: Round) -> None:
        """Hold what was heard against what the API has now."""
        from deployments.local.judge import expected, judge
        from deployments.local.runs import look

        heard = list(self.store.read())
        mine = [h for h in heard if h.payload and h.payload.get("run_id") == one.run]
        verdict = judge(expected(self.client, look(self.client, UUID(one.run))), mine)
        one.expected = len(verdict.expected)
        one.lost = [f"{m.id} {m.state} {m.task}" for m in verdict.missing]
        one.unexplained = len(verdict.unexplained)
        one.progress_fell = verdict.progress_fell
        one.forged = sum(not h.verified for h in heard)
        ends = [
            h for h in mine if h.route == "progress" and (h.payload or {})["state"] != "running"
        ]
        one.terminal_missing = not ends

    def all_told(self, one: Round) -> bool:
        self.judge(one)
        return not one.lost and not one.terminal_missing


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def play(lane: Lane, target: str) -> Round:
    """One round; `hit` says whether it counts."""
    began, one = time.monotonic(), Round(target)
    run = lane.trigger()
    one.run = str(run.id)
    with suppress(TimeoutError):
        wait_until(lambda: lane.open_tasks(run), 90, f"an open task of {run.name}", every=0.05)
        time.sleep(random.uniform(0, LATEST))  # noqa: S311 - the moment of the kill
        one.hit = wait_until(lambda: lane.kill(target, run), 5, target, every=0.02)
    if target in SERVICES:
        time.sleep(RESTART)
        lane.mend()
    _end(lane, run, one)
    time.sleep(ROWS)
    if not lane.off:
        with suppress(TimeoutError):
            wait_until(lambda: lane.all_told(one), TOLD, "the reports", every=0.5)
    _count_what_lives(lane, run, one)
    one.seconds = round(time.monotonic() - began, 1)
    return one


def _end(lane: Lane, run: "FlowRun", one: Round) -> None:
    """Await the run's end, with a sweep for one whose process is gone and whose state is not."""
    for swept in (False, True):
        with suppress(TimeoutError):
            ended = wait_until(lambda: lane.ended(run), END, f"the end of {run.name}", every=0.3)
            one.state, one.swept = str(ended.state_name), swept
            one.why = ended.state.message or ""
            break
        if not swept:
            lane.sweep()
    one.failed = one.state != ("Crashed" if one.target == "engine" and one.hit else "Completed")


def _count_what_lives(lane: Lane, run: "FlowRun", one: Round) -> None:
    from deployments.local.runs import left_alive

    with suppress(TimeoutError):
        wait_until(lambda: not left_alive(run.id, set()), GONE, "the end of all", every=0.5)
    one.left_alive = left_alive(run.id, set())


def tell_again(lane: Lane, rounds: list[Round]) -> None:
    """What `redeliver` does some minutes later, for runs of which something is missing."""
    from flows._reports.again import tell_again as again

    short = [one for one in rounds if one.lost or one.terminal_missing]
    for one in short:
        one.again = True
        again(lane.client.read_flow_run(UUID(one.run)))
    with suppress(TimeoutError):
        wait_until(
            lambda: not [one for one in short if not lane.all_told(one)], TOLD, "what was told"
        )


def main(home: Path, targets: list[str], out: IO[str]) -> None:
    with installation(home) as port:
        lane = Lane(home, port)
        rounds = []
        for target in targets:
            for _ in range(TRIES):
                rounds.append(one := play(lane, target))
                print(json.dumps({**asdict(one), "final": False}), file=out, flush=True)
                if one.hit:
                    break
        for one in rounds:
            lane.judge(one)  # the API knows all tasks by now
        if not lane.off:
            tell_again(lane, rounds)
        for one in rounds:
            print(json.dumps({**asdict(one), "final": True}), file=out, flush=True)


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        main(Path(sys.argv[1]), sys.argv[2:], sys.__stdout__ or sys.stderr)
