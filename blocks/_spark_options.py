"""What spark-submit can be told: field of SparkConfig, Spark's property, where it has a meaning.

Options: Spark's "Submitting Applications", "Configuration", "Running on YARN" and "Running on
Kubernetes" pages.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blocks._properties import joined, spelled
from blocks.errors import ConfigError

MASTERS = ("local", "spark", "yarn", "k8s")
REMOTE = ("spark", "yarn", "k8s")


@dataclass(frozen=True)
class Option:
    """One field; `masters` and `mode` say where it has a meaning."""

    field: str
    property: str | None = None
    masters: tuple[str, ...] = MASTERS
    mode: str | None = None

    def where(self) -> str:
        names = ", ".join(self.masters)
        return f"{names} in deploy_mode {self.mode}" if self.mode else names


OPTIONS = (
    Option("master", "spark.master"),
    Option("deploy_mode", "spark.submit.deployMode"),
    Option("app_name", "spark.app.name"),
    Option("driver_memory", "spark.driver.memory"),
    Option("driver_cores", "spark.driver.cores", REMOTE, "cluster"),
    Option("driver_java_options", "spark.driver.extraJavaOptions"),
    Option("driver_class_path", "spark.driver.extraClassPath"),
    Option("driver_library_path", "spark.driver.extraLibraryPath"),
    Option("executor_memory", "spark.executor.memory", REMOTE),
    Option("executor_cores", "spark.executor.cores", REMOTE),
    Option("num_executors", "spark.executor.instances", ("yarn", "k8s")),
    Option("total_executor_cores", "spark.cores.max", ("spark",)),
    Option("queue", "spark.yarn.queue", ("yarn",)),
    Option("supervise", "spark.driver.supervise", ("spark",), "cluster"),
    Option("jars", "spark.jars"),
    Option("py_files", "spark.submit.pyFiles"),
    Option("files", "spark.files"),
    Option("archives", "spark.archives"),
    Option("packages", "spark.jars.packages"),
    Option("exclude_packages", "spark.jars.excludes"),
    Option("repositories", "spark.jars.repositories"),
    Option("rest_url", None, ("spark", "yarn"), "cluster"),
    Option("shared_folder", None, REMOTE, "cluster"),
)

# What Spark says itself (4.x), so that ours adds to it.
REDACTED = "(?i)secret|password|token|access[.]?key|api[.]?key"


def kind_of(master: str) -> str:
    """local, spark, yarn or k8s; raises ConfigError for any other."""
    kind = re.split(r"[\[:]", master, maxsplit=1)[0]
    if kind not in MASTERS:
        raise ConfigError(
            f"master {master!r} is none of local[n], spark://host:port, yarn, k8s://https://…"
        )
    return kind


def check(settings: Any, conf: Mapping[str, Any]) -> None:
    """Raises ConfigError for an option that the master or the mode would silently ignore."""
    kind = kind_of(settings.master)
    if settings.deploy_mode == "cluster" and kind == "local":
        raise ConfigError(
            f"deploy_mode=cluster has no meaning for master {settings.master!r}: "
            f"only for {', '.join(REMOTE)}; take it out"
        )
    for option in OPTIONS:
        if not getattr(settings, option.field):
            continue
        if kind not in option.masters or option.mode not in (None, settings.deploy_mode):
            raise ConfigError(
                f"{option.field} has no meaning for master {settings.master!r} in deploy_mode "
                f"{settings.deploy_mode}: only for {option.where()}; take it out"
            )
    for option in OPTIONS:
        if option.property in conf and (
            getattr(settings, option.field) or option.field in ("master", "deploy_mode")
        ):
            raise ConfigError(f"conf holds {option.property}: use the field {option.field} alone")
    for name in conf:
        if not name.startswith("spark."):
            raise ConfigError(
                f"conf holds {name!r}, which Spark ignores: its properties begin with spark. "
                f"(Hadoop's with spark.hadoop.)"
            )


def properties(settings: Any) -> dict[str, str]:
    """The properties that the fields stand for."""
    found: dict[str, str] = {}
    for option in OPTIONS:
        value = getattr(settings, option.field)
        if option.property is None or value is None or value is False:
            continue
        text = joined(option.field, value) if isinstance(value, list) else spelled(value)
        if text is not None:
            found[option.property] = text
    return found


def of_the_driver(kind: str, environment: Mapping[str, str]) -> dict[str, str]:
    """How a driver in the cluster is given its environment, where properties do that."""
    prefix = {"yarn": "spark.yarn.appMasterEnv.", "k8s": "spark.kubernetes.driverEnv."}.get(kind)
    return {prefix + name: value for name, value in environment.items()} if prefix else {}


def redaction(secret: Iterable[str], theirs: str | None) -> str | None:
    """What Spark's UI and event log must not show: what they said, and the secret properties."""
    names = [_quoted(name) for name in sorted(secret)]
    return "|".join([theirs or REDACTED, *names]) if names else theirs


def _quoted(name: str) -> str:
    """`name` as a regular expression of Java's; re.escape's spelling is Python's own."""
    return "".join(char if char.isalnum() or char in "_-" else f"[{char}]" for char in name)
