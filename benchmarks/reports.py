"""What reports cost: `python -m benchmarks.reports [--quick] [--rounds N] [--json FILE]`.

`hook_p50`: milliseconds of one call of a task's hook, in a flow of 1,000 tasks.
`task_added`: CPU milliseconds per task that all reporting takes in the flow's process: every hook
counts whole, with what it would also do if nobody listened.
`flow_50ms`, `flow_empty`: the wall time of 1,000 tasks of 50 ms, and of empty ones, 4 at a time,
against the same flow with no endpoint saved.
`drain_rs256`, `drain_eddsa`: signed posts per second of a courier with a backlog.

Shown beside: the process's CPU with and without an endpoint, plain `@flow` and `@task`, and the
hook that one writes first, which signs and posts by itself (of a tenth of the tasks).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import psutil

from benchmarks._lab import couriers, cpu, figure, free_port, installation, quiet, wait_until
from benchmarks._table import options, show

ENDPOINT = "benchmark"
RUNS = 5  # whose messages make the backlog
NAIVE_SHARE, BESIDE = 10, 3  # one of so many tasks, and so many rounds, for what has no goal


@dataclass
class Receiver:
    """The receiver, a process of its own."""

    process: subprocess.Popen[str]

    def told(self) -> dict[str, Any]:
        assert self.process.stdin  # noqa: S101 - for the type checker alone
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(_lines(self.process).readline())
        return answer


def _lines(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout  # noqa: S101 - for the type checker alone
    return process.stdout


@contextmanager
def receiver(port: int, keys: Path, algorithm: str) -> Iterator[Receiver]:
    argv = [sys.executable, "-m", "benchmarks._receiver", str(port)]
    with subprocess.Popen(
        [*argv, str(keys / f"{algorithm}.pub.pem"), algorithm],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        _lines(process).readline()
        yield Receiver(process)
        process.terminate()


def make_keys(folder: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    pairs: dict[str, Any] = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    for algorithm, key in pairs.items():
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (folder / f"{algorithm}.pem").write_bytes(secret)
        (folder / f"{algorithm}.pub.pem").write_bytes(public)


@contextmanager
def endpoint(port: int, keys: Path, algorithm: str) -> Iterator[None]:
    """Saved for the time of the block: flow runs that begin in it are told to this address."""
    from blocks import ReportEndpoint, SigningKey

    key = SigningKey(algorithm=algorithm, path=str(keys / f"{algorithm}.pem"))
    ReportEndpoint(url=f"http://127.0.0.1:{port}", signing_key=key).save(ENDPOINT, overwrite=True)
    try:
        yield
    finally:
        ReportEndpoint.delete(ENDPOINT)


class Bench:
    """The installation at `home`, and what runs in it."""

    def __init__(self, home: Path, keys: Path) -> None:
        from blocks import ReportEndpoint
        from deployments.local import service

        self._home, self._keys = home, keys
        known = service.known()
        for name in ("worker", "listener"):
            service.stop(known[name])  # nobody needs them here, and they need some CPU
        ReportEndpoint.delete("listener")
        self._server = psutil.Process(known["server"].pid)

    def settle(self) -> None:
        """Until the server has digested what it was told, and the courier has told the rest."""
        quiet([self._server, *couriers(self._home)])

    def run(self, kind: str, count: int, seconds: float, **environment: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks._tasks", kind, str(count), str(seconds)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            stderr=(self._home / "flows.log").open("a"),
        )
        self.settle()
        measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {**measured, "each": measured["wall"] / count}

    def told(self, count: int, seconds: float) -> dict[str, Any]:
        """A flow with an endpoint saved; it is an error if not all was told."""
        port = free_port()
        with receiver(port, self._keys, "RS256") as hears, endpoint(port, self._keys, "RS256"):
            measured = self.run("ours", count, seconds)
            wanted = 3 * count + 2  # and the run's own end, with its results
            wait_until(lambda: hears.told()["messages"] >= wanted, 60, f"{wanted} messages")
            assert_right(hears.told(), wanted)
        return measured

    def flows(self, rounds: int, count: int, seconds: float) -> dict[str, list[dict[str, Any]]]:
        """Interleaved: ours with and without an endpoint; some rounds of the others."""
        measured: dict[str, list[dict[str, Any]]] = {
            kind: [] for kind in ("told", "untold", "plain", "naive")
        }
        self.run("ours", max(20, count // 10), seconds)
        pem = (self._keys / "RS256.pem").read_text()
        for number in range(rounds):
            for kind in ("told", "untold") if number % 2 else ("untold", "told"):
                run = self.told if kind == "told" else lambda *of: self.run("ours", *of)
                measured[kind].append(run(count, seconds))
            if number >= BESIDE:
                continue
            measured["plain"].append(self.run("plain", count, seconds))
            with receiver(port := free_port(), self._keys, "RS256"):
                of = {"BENCHMARK_URL": f"http://127.0.0.1:{port}", "BENCHMARK_PEM": pem}
                measured["naive"].append(self.run("naive", count // NAIVE_SHARE, seconds, **of))
        return measured

    def drain(self, algorithm: str, count: int) -> dict[str, float]:
        """Posts per second, from the first to the last, of a backlog that waits in the ledger."""
        from flows._reports.ledger import Ledger
        from flows._reports.outbox import folder

        port = free_port()
        with endpoint(port, self._keys, algorithm):
            wanted = backlog(count)
            ledger = Ledger(folder())

            def waiting() -> bool:
                return len(ledger.find("WHERE status = 'waiting'")) >= wanted

            wait_until(waiting, 120, f"a backlog of {wanted}", every=1)
            (courier,) = couriers(self._home)
            before = cpu([courier])
            with receiver(port, self._keys, algorithm) as hears:
                wait_until(
                    lambda: hears.told()["messages"] >= wanted, 180, f"{wanted} messages", every=1
                )
                told = hears.told()
                used = cpu([courier]) - before
                assert_right(told, wanted)
            ledger.close()
        return {"rate": wanted / (told["last"] - told["first"]), "cpu": used / wanted * 1000}


def backlog(count: int) -> int:
    """Put changes into the outbox as hooks would; how many messages they call for."""
    from prefect import flow
    from prefect.client.orchestration import get_client

    from blocks._changes import Change
    from flows._reports.outbox import put

    @flow(name="backlog")
    def nothing() -> None: ...

    with get_client(sync_client=True) as client:
        runs = [str(client.create_flow_run(nothing).id) for _ in range(RUNS)]
    tasks = count // 3
    for number in range(tasks):
        run = runs[number % RUNS]
        of_task: dict[str, Any] = {"task": f"rest-{number}", "task_run": str(uuid4())}
        for kind, name in (("RUNNING", "Running"), ("COMPLETED", "Completed")):
            at = datetime.now(UTC).isoformat()
            percent = 99 * number // tasks
            put(Change(run, str(uuid4()), kind, name, at, progress=percent, **of_task))
    return 3 * tasks


def assert_right(told: dict[str, Any], wanted: int) -> None:
    if told["wrong"] or told["messages"] != wanted or told["posts"] != wanted:
        raise SystemExit(f"{wanted} messages were to come, and this came: {told}")


def p50(run: dict[str, Any]) -> float:
    return 1000 * float(statistics.median(run["hooks"]))


def p99(run: dict[str, Any]) -> float:
    return 1000 * float(statistics.quantiles(run["hooks"], n=100)[98])


def rows_of_flows(bench: Bench, rounds: int, count: int) -> list[dict[str, Any]]:
    rested = bench.flows(rounds, count, 0.05)
    empty = bench.flows(rounds, count, 0)
    untold, told, naive = empty["untold"], empty["told"], empty["naive"]
    beside = len(naive)

    def each(runs: list[dict[str, Any]], name: str) -> list[float]:
        return [run[name] / count * 1000 for run in runs]

    rows = [
        figure("hook_p50", "ms", [p50(run) for run in told[:beside]], [p50(r) for r in naive],
               peer_name="naive hook", goal=0.5,
               p99=round(statistics.median(p99(run) for run in told), 3)),
        figure("task_added", "ms", each(told, "spent"), goal=1.5),
        figure("task_process", "ms", each(told, "cpu"), each(untold, "cpu"),
               peer_name="no endpoint"),
    ]  # fmt: skip
    for claim, measured, goal in (("flow_50ms", rested, 1.05), ("flow_empty", empty, 1.5)):
        wall = {kind: [run["each"] * count for run in runs] for kind, runs in measured.items()}
        rows += [
            figure(claim, "s", wall["told"], wall["untold"], peer_name="no endpoint",
                   goal=goal, judged="ratio"),
            figure(f"{claim}_plain", "s", wall["told"][:beside], wall["plain"],
                   peer_name="plain @flow and @task"),
            figure(f"{claim}_naive", "s", wall["told"][:beside], wall["naive"],
                   peer_name="naive hook"),
        ]  # fmt: skip
    return rows


def rows_of_drains(bench: Bench, rounds: int, count: int) -> list[dict[str, Any]]:
    rows = []
    for algorithm in ("RS256", "EdDSA"):
        drained = [bench.drain(algorithm, count) for _ in range(rounds)]
        rows.append(
            figure(
                f"drain_{algorithm.lower()}",
                "posts/s",
                [one["rate"] for one in drained],
                goal=700,
                at_least=True,
                cpu_ms=round(statistics.median(one["cpu"] for one in drained), 3),
            )
        )
    return rows


def main() -> int:
    given = options(__doc__, rounds=9, quick=1)
    with tempfile.TemporaryDirectory() as folder:
        home, keys = Path(folder) / "home", Path(folder) / "keys"
        keys.mkdir()
        make_keys(keys)
        with installation(home):
            bench = Bench(home, keys)
            rows = rows_of_drains(bench, min(given.rounds, 5), 300 if given.quick else 5000)
            rows += rows_of_flows(bench, given.rounds, 20 if given.quick else 1000)
        show(rows, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
