"""Run a Spark application with spark-submit.

SparkConfig.command() ──► submit_spark ──► spark_job
   (blocks/spark)            (task)          (flow)
"""

import sys
from pathlib import Path
from typing import Any

from prefect import flow

from blocks._home import private
from blocks._load import load
from blocks.errors import ConfigError
from blocks.spark import EVENT_LOG, SparkConfig
from flows import flow_hooks, guard, job_task
from flows._run.carry import carry, reported, scratch, task_progress
from flows._spark.events import EventLog
from flows._spark.java import find_java, spark_home


@job_task
def submit_spark(
    app: str, args: list[str] | None = None, config: str = "default"
) -> dict[str, Any]:
    """Hand `app` to Spark, wait for it, and return what it reported.

    An application reports by writing a JSON object to the file that PENSTOCK_RESULT names; its id
    is added as `application_id`. Raises ConfigError before anything is started, JobFailed with the
    last lines of the log after.
    """
    settings = load(SparkConfig, config)
    if "://" not in app and not Path(app).is_file():
        raise ConfigError(f"app {app!r} is no file (looked from {Path.cwd()})")
    java = find_java(settings.java_home)
    with scratch() as folder:
        command = settings.command(
            app,
            args or [],
            folder=folder,
            spark_home=spark_home(),
            java_home=java,
            python=sys.executable,
        )
        command.environment["PENSTOCK_RESULT"] = str(folder / "result.json")
        private(folder / "scratch")
        events = EventLog(private(folder / EVENT_LOG))
        progress = task_progress(f"Spark stages of {Path(app).name}")
        carry(
            command,
            folder=folder,
            name=f"Spark application {Path(app).name}",
            time_limit=settings.time_limit,
            on_tick=lambda: events.advance() and progress(events.share),
        )
        progress(1.0)
        return {**reported(folder / "result.json"), "application_id": events.application}


@flow(**flow_hooks())
@guard(parts=1)
def spark_job(app: str, args: list[str] | None = None, config: str = "default") -> dict[str, Any]:
    """Run the Spark application `app` with the SparkConfig block called `config`."""
    reported: dict[str, Any] = submit_spark(app, args, config)
    return reported
