"""How Spark applications are submitted."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from prefect.blocks.core import Block
from prefect.blocks.fields import SecretDict
from pydantic import Field, HttpUrl

from blocks._command import STARS, Command, EnvironmentFields
from blocks._properties import joined, properties_text, spelled
from blocks.errors import ConfigError

PROPERTIES = "spark.properties"
EVENT_LOG = "eventlog"

# What a run on this machine needs: Spark binds to the routable address unless told otherwise.
_LOOPBACK = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.port": "0",
}


class SparkConfig(EnvironmentFields, Block):
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
    py_files: list[str] = Field(
        default_factory=list,
        title="Python files",
        description="Modules and archives put on the application's path.",
        examples=[["helpers.py", "package.zip"]],
    )
    jars: list[str] = Field(
        default_factory=list,
        title="JARs",
        description="Java libraries for driver and executors.",
        examples=[["/opt/jars/postgresql.jar"]],
    )
    packages: list[str] = Field(
        default_factory=list,
        title="JAR packages",
        description="Maven coordinates, fetched by the submitting machine.",
        examples=[["org.apache.spark:spark-avro_2.13:4.0.0"]],
    )
    repositories: list[str] = Field(
        default_factory=list,
        title="JAR package repositories",
        description="More places to look for packages.",
        examples=[["https://maven.example.org/releases"]],
    )
    files: list[str] = Field(
        default_factory=list,
        description="Files put beside each executor.",
        examples=[["settings.json"]],
    )
    archives: list[str] = Field(
        default_factory=list,
        description="Archives unpacked beside each executor.",
        examples=[["environment.tar.gz#environment"]],
    )
    driver_memory: str | None = Field(
        default=None, description="Memory of the driver.", examples=["2g"]
    )
    executor_memory: str | None = Field(
        default=None, description="Memory of each executor.", examples=["4g"]
    )
    executor_cores: int | None = Field(default=None, ge=1, description="Cores of each executor.")
    num_executors: int | None = Field(
        default=None,
        ge=1,
        title="Executor count",
        description="How many executors; only for YARN and Kubernetes.",
    )
    total_executor_cores: int | None = Field(
        default=None,
        ge=1,
        title="Executor cores in total",
        description="Cores of all executors together; only for Spark's own master (spark://).",
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
    java_home: str = Field(
        default="auto",
        description="A JDK's folder, or auto: JAVA_HOME when it is Java 17 or 21, else PyPI's.",
    )
    time_limit: float | None = Field(
        default=None, gt=0, description="Seconds that an application may take; no limit if empty."
    )

    def command(
        self,
        app: str,
        args: Iterable[str] = (),
        *,
        folder: Path,
        spark_home: str,
        java_home: str,
        python: str,
    ) -> Command:
        """What would run for `app` with `args`: spark-submit, its environment and properties.

        `folder` is the run's private folder; every property goes through a file in it, so that
        none stands on a command line; `python` runs the driver, and executors on this machine.
        Raises ConfigError for settings the master does not allow.
        Options: Spark's "Submitting Applications" and "Configuration" pages.
        """
        self._check()
        if app.startswith("-"):
            raise ConfigError(f"app {app!r} would be read as an option: write ./{app}")
        open_to_all, secret = self._properties(folder), self._secret_conf()
        argv = [f"{spark_home}/bin/spark-submit", "--properties-file", str(folder / PROPERTIES)]
        if self.main_class:
            argv += ["--class", self.main_class]
        return Command(
            argv=[*argv, app, *args],
            environment={
                "SPARK_HOME": spark_home,
                "JAVA_HOME": java_home,
                "PYSPARK_DRIVER_PYTHON": python,
                **(
                    {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": python}
                    if self._local()
                    else {}
                ),
                **self.environment,
            },
            pass_environment=self.pass_environment,
            secrets=self.environment_secrets(),
            masked=list(secret.values()),
            files={PROPERTIES: properties_text({**open_to_all, **secret})},
            shown={PROPERTIES: properties_text({**open_to_all, **dict.fromkeys(secret, STARS)})},
        )

    def _local(self) -> bool:
        return self.master.startswith("local")

    def _check(self) -> None:
        kind = self.master.split("[")[0].split(":")[0]
        if kind not in ("local", "spark", "yarn", "k8s"):
            raise ConfigError(
                f"master {self.master!r} is none of local[n], spark://, yarn, k8s://https://"
            )
        only = {
            "deploy_mode=cluster": (self.deploy_mode == "cluster", ("spark", "yarn", "k8s")),
            "num_executors": (self.num_executors, ("yarn", "k8s")),
            "total_executor_cores": (self.total_executor_cores, ("spark",)),
            "executor_memory": (self.executor_memory, ("spark", "yarn", "k8s")),
            "executor_cores": (self.executor_cores, ("spark", "yarn", "k8s")),
            "queue": (self.queue, ("yarn",)),
        }
        for option, (given, masters) in only.items():
            if given and kind not in masters:
                raise ConfigError(
                    f"{option} has no meaning for master {self.master!r}: "
                    f"only for {', '.join(masters)}; take it out"
                )
        for name in ("spark.master", "spark.submit.deployMode"):
            if name in self.conf or name in self._secret_conf():
                raise ConfigError(f"conf holds {name}: use the field master or deploy_mode")
        if kind == "spark" and self.deploy_mode == "cluster" and self.secret_conf:
            raise ConfigError(
                "secret_conf cannot be used in standalone cluster mode, where Spark puts every "
                "property on the driver's command line; use secret_environment"
            )

    def _properties(self, folder: Path) -> dict[str, str]:
        properties = {
            "spark.master": self.master,
            "spark.submit.deployMode": self.deploy_mode,
            "spark.app.name": self.app_name,
            "spark.driver.memory": self.driver_memory,
            "spark.executor.memory": self.executor_memory,
            "spark.executor.cores": self.executor_cores,
            "spark.executor.instances": self.num_executors,
            "spark.cores.max": self.total_executor_cores,
            "spark.yarn.queue": self.queue,
            "spark.jars": joined("jars", self.jars),
            "spark.submit.pyFiles": joined("py_files", self.py_files),
            "spark.files": joined("files", self.files),
            "spark.archives": joined("archives", self.archives),
            "spark.jars.packages": joined("packages", self.packages),
            "spark.jars.repositories": joined("repositories", self.repositories),
            "spark.ui.showConsoleProgress": "false",
            **(self._beside(folder) if self.deploy_mode == "client" else {}),
            **(_LOOPBACK if self._local() else {}),
            **{name: spelled(value) for name, value in self.conf.items()},
        }
        return {name: str(value) for name, value in properties.items() if value is not None}

    def _beside(self, folder: Path) -> dict[str, str]:
        """What a driver on this machine writes to our folder, which one in the cluster lacks."""
        return {
            # The event log is how a run's progress is followed, with or without a UI.
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": (folder / EVENT_LOG).as_uri(),
            "spark.eventLog.rolling.enabled": "false",
            "spark.eventLog.compress": "false",
            "spark.local.dir": str(folder / "scratch"),
        }

    def _secret_conf(self) -> dict[str, str]:
        secret: dict[str, Any] = self.secret_conf.get_secret_value() if self.secret_conf else {}
        return {name: spelled(value) for name, value in secret.items()}
