"""Kills before your eyes: `python -m benchmarks.chaos [--quick] [--kills N]`, or `make chaos`.

The demo, while its engine, its worker, the courier and the listener are killed at random. What is
a service is started again; a run whose engine was killed is Crashed, and scheduled again as its
button in the UI would: it goes on with the tasks that had not ended. The listener's lines are
printed as they come. Exit code 0 when the run was completed, nothing was lost, no report came and
no task was finished twice, and nothing lives on.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._lab import installation, wait_until
from benchmarks._lane import ROWS, SERVICES, Lane, Round, tell_again

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

TARGETS = ("courier", "listener", "engine", "worker")
BETWEEN = (1.0, 4.0)  # seconds between two kills
LONGEST = 600.0  # seconds for all of it
# Prefect's worker calls a run Crashed twice: at once, and when its crash hook has ended. A run that
# is scheduled again in between would be Crashed while its second engine goes on.
SECOND_CRASH = 15.0  # seconds


class Chaos:
    """One run, those who want to end it, and those who see it through."""

    def __init__(self, lane: Lane, kills: int) -> None:
        self._lane, self._kills = lane, kills
        self._turn = cycle(random.sample(TARGETS, len(TARGETS)))
        self._read = 0

    def play(self) -> bool:
        """Whether the run was completed, told, and left nothing."""
        from prefect.states import Scheduled

        lane = self._lane
        demo = lane.client.read_deployment_by_name("demo/demo")
        run = lane.client.create_flow_run_from_deployment(demo.id)
        say(f"run {run.name} is scheduled")
        one = Round("all", run=str(run.id))
        deadline, next_kill, crashed = time.monotonic() + LONGEST, 0.0, 0.0
        while time.monotonic() < deadline:
            self.tell()
            if ended := lane.ended(run):
                one.state = str(ended.state_name)
                if one.state != "Crashed":
                    break
                crashed = crashed or time.monotonic()
                if time.monotonic() - crashed > SECOND_CRASH:
                    say("the run is Crashed: it is scheduled again")
                    lane.client.set_flow_run_state(run.id, Scheduled(), force=True)
                    crashed = 0.0
            elif self._kills and time.monotonic() > next_kill and self.kill_one(run):
                next_kill = time.monotonic() + random.uniform(*BETWEEN)  # noqa: S311 - a moment
            time.sleep(0.1)  # several other programs' doing: none sends us an event
        say(f"the run is {one.state or 'not ended'}")
        return self.judge(one, run)

    def kill_one(self, run: "FlowRun") -> bool:
        target = next(self._turn)
        if not self._lane.kill(target, run):
            return False
        self._kills -= 1
        say(f"SIGKILL: {target}")
        if target in SERVICES:
            self._lane.mend()
            say(f"the {target} was started again")
        return True

    def tell(self) -> None:
        """Print what the listener has heard since the last look."""
        from deployments.listener.watch import line

        size = self._lane.store.size
        for heard in self._lane.store.read(self._read):
            print(f"          heard  {line(heard)}", flush=True)
        self._read = size

    def judge(self, one: Round, run: "FlowRun") -> bool:
        from deployments.local.runs import left_alive

        time.sleep(ROWS)
        with suppress(TimeoutError):
            wait_until(lambda: self._lane.all_told(one), 60, "the reports", every=0.5)
        tell_again(self._lane, [one])
        self.tell()
        with suppress(TimeoutError):
            wait_until(lambda: not left_alive(run.id, set()), 20, "the end of all", every=0.5)
        alive = left_alive(run.id, set())
        heard = Counter((h.id, h.route) for h in self._lane.store.read() if h.verified)
        done = self.finished(run)
        doubled = [what for what, times in [*heard.items(), *done.items()] if times > 1]
        for name, those in (("lost", one.lost), ("doubled", doubled), ("alive", alive)):
            for that in those:
                print(f"{name}: {that}")
        print(f"{one.expected} messages were called for, {len(done)} tasks were finished")
        print(
            f"{len(one.lost)} lost, {len(doubled)} doubled outside effects, {len(alive)} left alive"
        )
        return one.state == "Completed" and not (one.lost or doubled or alive or one.forged)

    def finished(self, run: "FlowRun") -> Counter[str]:
        """How many times each task came to its own end; more than once is work done twice."""
        from deployments.local.runs import look

        client = self._lane.client
        return Counter(
            task.name
            for task in look(client, run.id).tasks
            for state in client.read_task_run_states(task.id)
            if state.is_completed() and state.name == "Completed"
        )


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one kill, to see that it works")
    parser.add_argument("--kills", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-chaos-") as folder:
        home = Path(folder) / "home"
        with installation(home) as port:
            right = Chaos(Lane(home, port), 1 if given.quick else given.kills).play()
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
