"""Fields of SparkConfig by what they are about: what an application gets, and what it brings."""

from pydantic import Field

from blocks._form import Form


class Resources(Form):
    """Memory, cores and Java of driver and executors."""

    driver_memory: str | None = Field(
        default=None, description="Memory of the driver.", examples=["2g"]
    )
    driver_cores: int | None = Field(
        default=None, ge=1, description="Cores of the driver; only in cluster mode."
    )
    driver_java_options: str | None = Field(
        default=None,
        title="Driver JVM options",
        description="Options of the driver's Java.",
        examples=["-XX:+UseG1GC -Duser.timezone=UTC"],
    )
    driver_class_path: str | None = Field(
        default=None,
        description="What the driver's class path begins with.",
        examples=["/opt/jars/ojdbc11.jar:/opt/conf"],
    )
    driver_library_path: str | None = Field(
        default=None,
        description="Where the driver finds native libraries.",
        examples=["/opt/hadoop/lib/native"],
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


class Dependencies(Form):
    """Files that go with an application."""

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
    exclude_packages: list[str] = Field(
        default_factory=list,
        title="Excluded JAR packages",
        description="Maven coordinates, group:name, that packages need and must not bring.",
        examples=[["org.slf4j:slf4j-api"]],
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
