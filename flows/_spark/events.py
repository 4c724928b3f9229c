"""Follow a Spark application by the event log it writes (Spark's "Monitoring" page)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXPECTED = 3  # jobs that are taken to follow, as long as the application has not ended


@dataclass
class _Job:
    tasks: int
    open_stages: dict[int, int] = field(default_factory=dict)  # stage → tasks not ended yet
    ended: bool = False

    @property
    def share(self) -> float:
        if self.ended or not self.tasks:
            return 1.0
        return 1 - sum(self.open_stages.values()) / self.tasks


class EventLog:
    """Reads what was added to an application's event log and knows how far it has come.

    Spark tells how many tasks a job has when the job starts, but not how many jobs will follow. So
    the share done is jobs / (jobs + 3): it moves with every task, and never says done too early.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0
        self._rest = b""
        self._jobs: dict[int, _Job] = {}
        self.application: str | None = None

    def advance(self) -> bool:
        """Take in what is new; whether there was anything."""
        path = next((p for p in sorted(self._folder.glob("[!.]*")) if p.is_file()), None)
        if path is None:
            return False
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return False  # Spark has just renamed it, which it does at the end: look again
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(lines)

    @property
    def share(self) -> float:
        """0 to less than 1; it may fall when a job starts, whoever shows it keeps the highest."""
        done = sum(job.share for job in self._jobs.values())
        return done / (max(done, len(self._jobs)) + EXPECTED)

    def _take(self, event: dict[str, Any]) -> None:
        match event["Event"]:
            case "SparkListenerApplicationStart":
                self.application = event.get("App ID")
            case "SparkListenerJobStart":
                stages = {s["Stage ID"]: s["Number of Tasks"] for s in event["Stage Infos"]}
                self._jobs[event["Job ID"]] = _Job(sum(stages.values()), stages)
            case "SparkListenerTaskEnd" if event["Task End Reason"]["Reason"] == "Success":
                for job in self._jobs.values():
                    if left := job.open_stages.get(event["Stage ID"]):
                        job.open_stages[event["Stage ID"]] = left - 1
            case "SparkListenerJobEnd":
                # Stages that Spark skipped, because their output was there, have no task ends.
                self._jobs[event["Job ID"]].ended = True
