"""How Spark applications are submitted."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import Field, HttpUrl

from blocks._command import STARS, Command, EnvironmentFields
from blocks._properties import properties_text, spelled
from blocks._spark_fields import Dependencies, Resources
from blocks._spark_options import check, kind_of, of_the_driver, properties, redaction
from blocks.errors import ConfigError

PROPERTIES = "spark.properties"
EVENT_LOG = "eventlog"
REDACTION = "spark.redaction.regex"

# What a run on this machine needs: Spark binds to the routable address unless told otherwise.
_LOOPBACK = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.port": "0",
}


class SparkConfig(Resources, Dependencies, EnvironmentFields, Block):
    """How Spark applications are submitted.

    Example:
        ```python
        from blocks import SparkConfig

        config = SparkConfig.load("BLOCK_NAME")
        SparkConfig(master=config.master, driver_memory="4g").save("larger")
        ```
    """

    _block_type_name = "Spark Config"
    _block_type_slug = "spark-config"
    _description = "How Spark applications are submitted."
    _documentation_url = HttpUrl(
        "https://spark.apache.org/docs/latest/submitting-applications.html"
    )

    master: str = Field(
        default="local[*]",
        description="Where Spark runs.",
        examples=["local[2]", "spark://host:7077", "yarn", "k8s://https://host:6443"],
    )
    deploy_mode: Literal["client", "cluster"] = Field(
        default="client", description="Where the driver runs: beside the flow, or in the cluster."
    )
    queue: str | None = Field(
        default=None, title="YARN queue", description="Only for YARN.", examples=["nightly"]
    )
    app_name: str | None = Field(
        default=None,
        title="Application name",
        description="Name shown by Spark; the run's if empty.",
        examples=["Delays of 2013"],
    )
    main_class: str | None = Field(
        default=None,
        title="Application main class",
        description="Needed by JVM applications alone.",
        examples=["org.example.Main"],
    )
    supervise: bool = Field(
        default=False,
        description="Restart a driver that failed; only for Spark's own master in cluster mode.",
    )
    proxy_user: str | None = Field(
        default=None,
        description="The user that Hadoop takes the application for.",
        examples=["alice"],
    )
    rest_url: str | None = Field(
        default=None,
        title="REST address",
        description=(
            "Where the cluster is asked in cluster mode: Spark's REST submission server, by "
            "default port 6066 of the master, or YARN's resource manager."
        ),
        examples=["http://master:6066", "http://resourcemanager:8088"],
    )
    shared_folder: str | None = Field(
        default=None,
        description=(
            "A folder that the cluster and this machine both reach: a driver in the cluster "
            "leaves its event log and its result there."
        ),
        examples=["/mnt/shared/spark", "s3://bucket/spark"],
    )
    conf: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        title="Properties",
        description="Any Spark property.",
        examples=[{"spark.sql.shuffle.partitions": 8}],
    )
    secret_conf: SecretDict | None = Field(
        default=None,
        title="Secret properties",
        description="Spark properties whose values are secret.",
        examples=[{"spark.hadoop.fs.s3a.secret.key": "its value"}],
    )
    verbose: bool = Field(
        default=False, description="Let spark-submit say how it understood its settings."
    )
    java_home: str = Field(
        default="auto",
        description="A JDK's folder, or auto: JAVA_HOME when it is Java 17 or 21, else PyPI's.",
    )
    time_limit: float | None = Field(
        default=None, gt=0, description="Seconds that an application may take; no limit if empty."
    )

    @property
    def kind(self) -> str:
        """local, spark, yarn or k8s: what `master` is."""
        return kind_of(self.master)

    @property
    def in_cluster(self) -> bool:
        """Whether the driver runs in the cluster and not beside the flow."""
        return self.deploy_mode == "cluster"

    def command(
        self,
        app: str,
        args: Iterable[str] = (),
        *,
        folder: Path,
        spark_home: str,
        java_home: str,
        python: str,
        tag: str | None = None,
    ) -> Command:
        """What would run for `app` with `args`: spark-submit, its environment and properties.

        `folder` is the run's private folder; every property goes through a file in it, so that
        none stands on a command line; `python` runs the driver, and executors on this machine;
        `tag` marks an application whose driver runs in the cluster, and nobody waits for that one.
        Raises ConfigError for settings the master does not allow.
        Options: Spark's "Submitting Applications" and "Configuration" pages.
        """
        self.check()
        if app.startswith("-"):
            raise ConfigError(f"app {app!r} would be read as an option: write ./{app}")
        secret = self.secret_properties()
        open_to_all = ({} if self.in_cluster else _beside(folder)) | self.properties(tag)
        argv = [f"{spark_home}/bin/spark-submit", "--properties-file", str(folder / PROPERTIES)]
        argv += ["--class", self.main_class] if self.main_class else []
        argv += ["--proxy-user", self.proxy_user] if self.proxy_user else []
        argv += ["--verbose"] if self.verbose else []
        here = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": python}
        return Command(
            argv=[*argv, app, *args],
            environment={
                "SPARK_HOME": spark_home,
                "JAVA_HOME": java_home,
                "PYSPARK_DRIVER_PYTHON": python,
                **(here if self.kind == "local" else {}),
                **self.environment,
            },
            pass_environment=self.pass_environment,
            secrets=self.environment_secrets(),
            masked=list(secret.values()),
            files={PROPERTIES: properties_text({**open_to_all, **secret})},
            shown={PROPERTIES: properties_text({**open_to_all, **dict.fromkeys(secret, STARS)})},
        )

    def check(self) -> None:
        """Raises ConfigError for settings that the master does not allow."""
        secret = self._secret_conf()
        check(self, {**self.conf, **secret})
        if self.kind == "spark" and self.in_cluster and secret:
            raise ConfigError(
                "secret_conf cannot be used in standalone cluster mode, where Spark puts every "
                "property on the driver's command line; use secret_environment"
            )

    def properties(self, tag: str | None = None) -> dict[str, str]:
        """Every property that is no secret and hangs on no run but for its `tag`."""
        conf = {name: spelled(value) for name, value in self.conf.items()}
        made = {
            "spark.ui.showConsoleProgress": "false",
            **(_LOOPBACK if self.kind == "local" else {}),
            **(self._in_cluster(tag) if self.in_cluster else {}),
            **properties(self),
            **conf,
        }
        hidden = redaction(self.secret_properties(), conf.get(REDACTION))
        return {**made, REDACTION: hidden} if hidden else made

    def secret_properties(self) -> dict[str, str]:
        """The secret ones, in the clear: only for the file, and for masking."""
        secret = self._secret_conf()
        if self.in_cluster:
            secret |= of_the_driver(self.kind, self.environment_secrets())
        return secret

    def _in_cluster(self, tag: str | None) -> dict[str, str]:
        """What a driver in the cluster is told, so that it is found again and not waited for."""
        told = of_the_driver(self.kind, self.environment)
        if self.kind == "yarn":
            told["spark.yarn.submit.waitAppCompletion"] = "false"
            told |= {"spark.yarn.tags": tag} if tag else {}
        if self.kind == "k8s":
            told["spark.kubernetes.submission.waitAppCompletion"] = "false"
            told |= {"spark.kubernetes.driver.label.penstock-tag": tag} if tag else {}
        if self.shared_folder and tag:
            told |= _event_log(f"{self.shared_folder.rstrip('/')}/{tag}/{EVENT_LOG}")
        return told

    def _secret_conf(self) -> dict[str, str]:
        secret: dict[str, Any] = self.secret_conf.get_secret_value() if self.secret_conf else {}
        return {name: spelled(value) for name, value in secret.items()}


def _beside(folder: Path) -> dict[str, str]:
    """What a driver on this machine writes to our folder."""
    return {
        **_event_log((folder / EVENT_LOG).as_uri()),
        "spark.local.dir": str(folder / "scratch"),
    }


def _event_log(url: str) -> dict[str, str]:
    """The event log is how a run's progress is followed, with or without a UI."""
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": url,
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
    }
