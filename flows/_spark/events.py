"""Follow a Spark application by the event log it writes (Spark's "Monitoring" page)."""

import json
from pathlib import Path


class EventLog:
    """Reads what was added to an application's event log and knows how far it has come.

    Spark says how many tasks a job has when the job starts, but not how many jobs will follow. So
    the share done counts one more job of the average size, until the application ends: it rises
    with every job and never says done too early.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offset = 0
        self._rest = b""
        self._jobs = 0
        self._tasks = 0
        self._done = 0
        self._stage_tasks: dict[int, int] = {}
        self.application: str | None = None
        self.stage = ""

    def advance(self) -> bool:
        """Take in what is new; whether there was anything."""
        path = next((p for p in sorted(self._folder.glob("*")) if p.is_file()), None)
        if path is None:
            return False
        with path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(lines)

    @property
    def share(self) -> float:
        if not self._tasks:
            return 0.0
        return self._done / (self._tasks + self._tasks / self._jobs)

    def _take(self, event: dict[str, object]) -> None:
        match event.get("Event"):
            case "SparkListenerApplicationStart":
                self.application = str(event.get("App ID"))
            case "SparkListenerJobStart":
                stages = event.get("Stage Infos")
                self._jobs += 1
                for stage in stages if isinstance(stages, list) else []:
                    self._stage_tasks[stage["Stage ID"]] = stage["Number of Tasks"]
                    self._tasks += stage["Number of Tasks"]
            case "SparkListenerStageSubmitted":
                info = event.get("Stage Info")
                if isinstance(info, dict):
                    self.stage = str(info["Stage Name"])
            case "SparkListenerTaskEnd":
                reason = event.get("Task End Reason")
                if isinstance(reason, dict) and reason.get("Reason") == "Success":
                    self._done += 1
            case "SparkListenerStageCompleted":
                # Stages that Spark skipped because their output was there count as done, too.
                info = event.get("Stage Info")
                if isinstance(info, dict):
                    self._stage_tasks.pop(info["Stage ID"], None)
            case "SparkListenerJobEnd":
                skipped = sum(self._stage_tasks.values())
                self._stage_tasks.clear()
                self._done += skipped
