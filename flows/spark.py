"""Run a Spark application with spark-submit.

spark_job ──► submit_spark ──► SparkConfig.command() ──► run_command
  (flow)         (task)           (blocks/spark)          spark-submit
"""

import sys
from pathlib import Path
from typing import Any

from prefect import flow

from blocks._command import Command
from blocks._home import private
from blocks.errors import ConfigError
from blocks.spark import EVENT_LOG, SparkConfig
from flows import flow_hooks, guard, job_task
from flows._plan import Plan, show, unmade_folder
from flows._run.guard import current
from flows._run.run_command import reported, run_command, scratch, task_progress
from flows._spark.events import EventLog
from flows._spark.java import find_java, spark_home

RESULT = "result.json"


@job_task
def submit_spark(
    app: str, args: list[str] | None = None, config: str = "default"
) -> dict[str, Any]:
    """Hand `app` to Spark, wait for it, and return what it reported.

    An application reports by writing a JSON object to the file that PENSTOCK_RESULT names; its id
    is added as `application_id`. Raises ConfigError before anything is started, JobFailed with the
    last lines of the log after.
    """
    settings = current().settings.get(SparkConfig, config)
    java = find_java(settings.java_home)
    with scratch() as folder:
        command = _command(settings, app, args, folder=folder, java=java)
        private(folder / "scratch")
        events = EventLog(private(folder / EVENT_LOG))
        progress = task_progress(f"Spark stages of {Path(app).name}")
        run_command(
            command,
            folder=folder,
            name=f"Spark application {Path(app).name}",
            time_limit=settings.time_limit,
            on_tick=lambda: events.advance() and progress(events.share),
        )
        progress(1.0)
        return {**reported(folder / RESULT), "application_id": events.application}


def plan_spark(app: str, args: list[str] | None = None, config: str = "default") -> Plan:
    """What `submit_spark` would start; raises ConfigError as it would."""
    settings = current().settings.get(SparkConfig, config)
    java = find_java(settings.java_home, make=False)
    command = _command(settings, app, args, folder=unmade_folder(), java=java)
    return Plan("submit_spark", command)


def _command(
    settings: SparkConfig, app: str, args: list[str] | None, *, folder: Path, java: str
) -> Command:
    if "://" not in app and not Path(app).is_file():
        raise ConfigError(f"app {app!r} is no file (looked from {Path.cwd()})")
    command = settings.command(
        app,
        args or [],
        folder=folder,
        spark_home=spark_home(),
        java_home=java,
        python=sys.executable,
    )
    command.environment["PENSTOCK_RESULT"] = str(folder / RESULT)
    return command


@flow(**flow_hooks())
@guard(parts=1)
def spark_job(
    app: str, args: list[str] | None = None, config: str = "default", dry_run: bool = False
) -> dict[str, Any]:
    """Run a Spark application with spark-submit.

    Args:
        app: The application: a path as seen from the working directory, or a URL Spark knows.
        args: Its arguments; each reaches the application exactly as written.
        config: Name of the SparkConfig block.
        dry_run: Only show what would be run, and who would be told.
    """
    if dry_run:
        return show(plan_spark(app, args, config))
    made: dict[str, Any] = submit_spark(app, args, config)
    return made
