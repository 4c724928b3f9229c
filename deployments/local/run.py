"""`penstock run`: everything up, one run followed to its end, every report checked.

    up ──► trigger (API) ──► view ──► what the states call for == what the listener verified?

Exit code 0 only if the run is Completed and every report expected has arrived and is verified.
"""

import argparse
import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks._home import home, reports_file, write_private
from blocks.errors import ConfigError
from deployments.local import service
from deployments.local.up import started

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from deployments.local.judge import Verdict
    from deployments.local.runs import Tree

RECORDED_WITHIN = 2.5  # seconds in which task states reach the API: they come in batches
GONE_WITHIN = 10.0  # seconds after that in which its processes must have gone

EXAMPLES = (
    "run",
    """run cwl --parameters '{"workflow": "flows/examples/hello.cwl"}'""",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "deployment",
        nargs="?",
        default="demo",
        help="its name, or flow/name (default: %(default)s)",
    )
    parser.add_argument(
        "--parameters", metavar="JSON", default="{}", help="parameters of the run, a JSON object"
    )
    parser.add_argument(
        "--within",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long after the run's end its last report may come (default: %(default)g)",
    )
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write what last-run.json gets to FILE, too"
    )
    parser.add_argument("--port", type=int, help="port of the server, if it is not up yet")
    parser.add_argument("--server", metavar="URL", help="use this Prefect API instead of our own")


def main(options: argparse.Namespace) -> int:
    parameters = _object(options.parameters)
    if options.json:
        _must_be_writable(options.json)
    began = time.monotonic()
    with started(options.server, options.port):
        up = time.monotonic()
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            run = _Run(client, options.deployment, parameters, options.within)
            run.follow()
            run.seconds["up"] = round(up - began, 1)
            run.check()
            return run.conclude(options.json)


class _Run:
    """One run from trigger to verdict."""

    def __init__(
        self,
        client: "SyncPrefectClient",
        deployment: str,
        parameters: dict[str, Any],
        within: float,
    ) -> None:
        from deployments.listener.store import Store
        from deployments.local.runs import trigger

        self.client = client
        self.within = within
        self.store = Store(reports_file())
        self.since = self.store.size
        self.triggered = time.time()
        self.flow_run = trigger(client, deployment, parameters)
        self.seconds: dict[str, float] = {}
        self.tree: Tree
        self.verdict: Verdict
        print(f"run {self.flow_run.name}: {self.page}")

    @property
    def page(self) -> str:
        api = str(self.client.api_url).rstrip("/")
        return f"{api.removesuffix('/api')}/runs/flow-run/{self.flow_run.id}"

    def follow(self) -> None:
        """Until the run and all in it have ended; an interrupt cancels it."""
        from deployments.local.runs import POLL, cancel_and_wait, look
        from deployments.local.view import view

        try:
            with view() as shown:
                ended = None
                while True:
                    self.tree = look(self.client, self.flow_run.id)
                    shown.show(self.tree)
                    state = self.tree.root.state
                    if state and state.is_final():
                        ended = ended or time.monotonic()
                        since = time.monotonic() - ended
                        if (since > RECORDED_WITHIN and self.tree.settled) or (since > self.within):
                            break
                    time.sleep(POLL)
        except KeyboardInterrupt:
            print("\ncancelling the run")
            cancel_and_wait(self.client, [self.flow_run.id])
            raise

    def check(self) -> None:
        """Until every expected report is there, or their time is over."""
        from deployments.local.judge import expected, judge
        from deployments.local.runs import POLL, look

        deadline = time.monotonic() + self.within
        while True:
            heard = list(self.store.read(self.since))
            self.verdict = judge(expected(self.client, self.tree), heard)
            if self.verdict.ok or self.verdict.forged or time.monotonic() > deadline:
                break
            time.sleep(POLL)
            # A report may be here before the API knows of the state that it tells.
            self.tree = look(self.client, self.flow_run.id)
        if heard:
            last = datetime.fromisoformat(heard[-1].at).timestamp()
            self.seconds["trigger_to_last_report"] = round(last - self.triggered, 1)

    def conclude(self, also: Path | None) -> int:
        """Write last-run.json and `also`, print what came out, and give the exit code."""
        from deployments.local.summary import parts, show

        root = self.tree.root
        self.seconds.update(parts(self.tree))
        last: dict[str, Any] = {
            "flow_run_id": str(root.id),
            "state": root.state.name if root.state else None,
            "seconds": self.seconds,
            "reports": self.verdict.as_dict(),
            "left_alive": self._left_alive(),
        }
        completed = root.state is not None and root.state.is_completed()
        last["ok"] = completed and self.verdict.ok and not last["left_alive"]
        text = json.dumps(last, indent=1, ensure_ascii=False)
        write_private(home() / "last-run.json", text)
        if also:
            also.write_text(text)
        show(self.tree, self.verdict, last, self.page)
        return 0 if last["ok"] else 1

    def _left_alive(self) -> list[dict[str, Any]]:
        """What still carries the run's mark once its engine has had time to say good-bye."""
        from deployments.local.runs import POLL, left_alive

        services = {known.pid for known in service.known().values()}
        deadline = time.monotonic() + GONE_WITHIN
        while (left := left_alive(self.flow_run.id, services)) and time.monotonic() < deadline:
            time.sleep(POLL)
        return left


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--parameters is no JSON ({error}): {text}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"--parameters must be a JSON object, this is: {text}")
    return value


def _must_be_writable(path: Path) -> None:
    """Tell before the run, not after it; what the file holds stays until then."""
    try:
        path.open("a").close()
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from None
