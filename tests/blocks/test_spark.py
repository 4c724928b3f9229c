"""What would run for a Spark application: exact, without secrets in sight, and nothing done yet."""

import re
from pathlib import Path
from typing import Any

import pytest

from blocks import SparkConfig
from blocks._command import Command
from blocks.errors import ConfigError

HOMES = {"spark_home": "/opt/spark", "java_home": "/opt/java", "python": "/bin/py"}
MASTERS = {
    "local": "local[2]",
    "spark": "spark://host:7077",
    "yarn": "yarn",
    "k8s": "k8s://https://host:6443",
}
# What every run gets; with a driver beside the flow also BESIDE, with a local master also LOOPBACK.
EVERY = {"spark.ui.showConsoleProgress": "false"}
BESIDE = {
    "spark.eventLog.enabled": "true",
    "spark.eventLog.dir": "file:///runs/my%20run/eventlog",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.compress": "false",
    "spark.local.dir": "/runs/my run/scratch",
}
ALWAYS = {**EVERY, **BESIDE, "spark.submit.deployMode": "client"}
LOOPBACK = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.port": "0",
}
WORDS = ["", "plain", "a=b", "a:b", "#x", "!x", "back\\slash", "back\\", "\\\\two", "\\u0041"]
HARD = [
    *WORDS,
    " leading blank",
    "  two leading and two trailing  ",
    "one\ntwo",
    "one\r\ntwo\n",
    "\ttab\tinside",
    "\x00\x0c\x1b\x7f\u0085\u2028",
    "käse, 東京, ✈ 🚀",
]


def command(*args: str, **settings: Any) -> Command:
    return SparkConfig(**settings).command("app.py", args, folder=Path("/runs/my run"), **HOMES)


def properties(text: str) -> dict[str, str]:
    """The properties in `text`, read as the page of java.util.Properties.load says."""
    found, lines = {}, iter(re.split(r"\r\n|\r|\n", text))
    for natural in lines:
        line = natural.lstrip(" \t\f")
        if not line or line[0] in "#!":
            continue
        while (len(line) - len(line.rstrip("\\"))) % 2:
            line = line[:-1] + next(lines, "").lstrip(" \t\f")
        parts = re.fullmatch(r"((?:\\.|[^\\ \t\f=:])*)[ \t\f]*[=:]?[ \t\f]*(.*)", line, re.DOTALL)
        assert parts
        found[unescaped(parts[1])] = unescaped(parts[2])
    return found


def unescaped(text: str) -> str:
    def char(found: re.Match[str]) -> str:
        letter = found[1]
        named = {"t": "\t", "r": "\r", "n": "\n", "f": "\f"}
        return chr(int(letter[1:], 16)) if len(letter) == 5 else named.get(letter, letter)

    units = re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", char, text, flags=re.DOTALL)
    return units.encode("utf-16", "surrogatepass").decode("utf-16")


def written(made: Command) -> dict[str, str]:
    assert list(made.files) == ["spark.properties"]
    return properties(made.files["spark.properties"])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Truth = Beauty\n", {"Truth": "Beauty"}),
        (" Truth:Beauty", {"Truth": "Beauty"}),
        ("Truth                    :Beauty", {"Truth": "Beauty"}),
        ("fruits  apple, banana, \\\n   pear", {"fruits": "apple, banana, pear"}),
        ("cheeses", {"cheeses": ""}),
        ("\\:\\= x\n# no\n  ! no\n\nb=\\u00e4\\z\\\\", {":=": "x", "b": "äz\\"}),
    ],
)
def test_the_reader_of_this_test_reads_the_examples_on_javas_own_page(text, meant):
    assert properties(text) == meant


@pytest.mark.parametrize("text", HARD)
def test_java_reads_any_value_and_any_name_as_it_was_set(text):
    mine = {"spark.one": text, f"spark.{text}": "two", "spark.z": "last"}
    made = command(conf=mine, secret_conf={"spark.secret": text})
    assert written(made).items() >= {**mine, "spark.secret": text}.items()
    assert made.files["spark.properties"].isascii()  # one encoding less to agree on


def test_command_puts_every_property_into_the_file_and_none_on_the_command_line():
    made = command(
        master="yarn",
        deploy_mode="cluster",
        app_name="Nightly",
        main_class="org.example.Main",
        jars=["/a b.jar", "hdfs://c.jar"],
        py_files=["d.py"],
        files=["e.txt", "f.txt"],
        archives=["g.zip#here"],
        packages=["org:name_2.13:1.0", "org:other:2"],
        repositories=["https://repo.example.org"],
        driver_memory="2g",
        executor_memory="4g",
        executor_cores=3,
        num_executors=5,
        queue="big",
    )
    assert made.argv == [
        "/opt/spark/bin/spark-submit",
        "--properties-file",
        "/runs/my run/spark.properties",
        "--class",
        "org.example.Main",
        "app.py",
    ]
    assert written(made) == {
        **EVERY,
        "spark.yarn.submit.waitAppCompletion": "false",
        "spark.master": "yarn",
        "spark.submit.deployMode": "cluster",
        "spark.app.name": "Nightly",
        "spark.jars": "/a b.jar,hdfs://c.jar",
        "spark.submit.pyFiles": "d.py",
        "spark.files": "e.txt,f.txt",
        "spark.archives": "g.zip#here",
        "spark.jars.packages": "org:name_2.13:1.0,org:other:2",
        "spark.jars.repositories": "https://repo.example.org",
        "spark.driver.memory": "2g",
        "spark.executor.memory": "4g",
        "spark.executor.cores": "3",
        "spark.executor.instances": "5",
        "spark.yarn.queue": "big",
    }


def test_arguments_go_to_the_application_unchanged_and_in_order():
    args = ["a b", "", "--conf", "x=y", "a,b", "--", "-1", "$HOME", "'q'", "naïve 🚀", "x\ny"]
    assert command(*args).argv[3:] == ["app.py", *args]


@pytest.mark.parametrize("kind", MASTERS)
def test_loopback_is_for_local_masters_only(kind):
    made = command(master=MASTERS[kind])
    local = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": "/bin/py"}
    assert written(made) == {
        "spark.master": MASTERS[kind],
        **ALWAYS,
        **(LOOPBACK if kind == "local" else {}),
    }
    assert made.environment == {
        "SPARK_HOME": "/opt/spark",
        "JAVA_HOME": "/opt/java",
        "PYSPARK_DRIVER_PYTHON": "/bin/py",
        **(local if kind == "local" else {}),
    }


@pytest.mark.parametrize("field", ["conf", "secret_conf"])
def test_the_users_properties_win_over_ours(field):
    mine = {"spark.ui.port": "4040", "spark.eventLog.compress": "true", "spark.mine": "1"}
    found = written(command(**{field: mine}))
    found.pop("spark.redaction.regex", None)  # of the secret ones
    assert found == {"spark.master": "local[*]", **ALWAYS, **LOOPBACK, **mine}


@pytest.mark.parametrize("field", ["conf", "secret_conf"])
@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (False, "false"), (8, "8"), (0.5, "0.5"), ("True", "True")]
)
def test_a_value_is_spelled_as_spark_spells_it(field, value, text):
    assert written(command(**{field: {"spark.x": value}}))["spark.x"] == text


def test_secrets_are_in_the_file_and_in_the_list_to_mask_and_nowhere_to_be_seen():
    secret = {"spark.password": "hunter2", "spark.token": "s3cret"}
    made = command(
        secret_conf=secret, secret_environment={"DB": "pa55word"}, environment={"A": "b"}
    )
    assert written(made).items() >= secret.items()
    assert sorted(made.masked) == ["hunter2", "s3cret"]
    assert made.secrets == {"DB": "pa55word"}
    assert made.environment["A"] == "b"
    seen = repr(made) + repr(made.argv) + repr(made.environment)
    assert [s for s in ("hunter2", "s3cret", "pa55word") if s in seen] == []


FITS = [
    ("deploy_mode", "cluster", "spark.submit.deployMode", ["spark", "yarn", "k8s"]),
    ("num_executors", 1, "spark.executor.instances", ["yarn", "k8s"]),
    ("total_executor_cores", 1, "spark.cores.max", ["spark"]),
    ("executor_memory", "4g", "spark.executor.memory", ["spark", "yarn", "k8s"]),
    ("executor_cores", 1, "spark.executor.cores", ["spark", "yarn", "k8s"]),
    ("queue", "big", "spark.yarn.queue", ["yarn"]),
    ("driver_memory", "2g", "spark.driver.memory", list(MASTERS)),
    ("driver_java_options", "-Da=b -Dc", "spark.driver.extraJavaOptions", list(MASTERS)),
    ("driver_class_path", "/a:/b", "spark.driver.extraClassPath", list(MASTERS)),
    ("driver_library_path", "/lib", "spark.driver.extraLibraryPath", list(MASTERS)),
    ("exclude_packages", ["a:b"], "spark.jars.excludes", list(MASTERS)),
]
IN_CLUSTER = [
    ("driver_cores", 2, ["spark", "yarn", "k8s"]),
    ("supervise", True, ["spark"]),
    ("rest_url", "http://host:6066", ["spark", "yarn"]),
    ("shared_folder", "/mnt", ["spark", "yarn", "k8s"]),
]


@pytest.mark.parametrize("row", FITS, ids=[row[0] for row in FITS])
@pytest.mark.parametrize("kind", MASTERS)
def test_an_option_is_refused_by_the_masters_it_means_nothing_to(row, kind):
    option, value, name, masters = row
    if kind in masters:
        assert written(command(master=MASTERS[kind], **{option: value}))[name] == (
            value[0] if isinstance(value, list) else str(value)
        )
        return
    with pytest.raises(ConfigError, match=option) as caught:
        command(master=MASTERS[kind], **{option: value})
    assert MASTERS[kind] in str(caught.value)


@pytest.mark.parametrize("master", ["", "mesos://host", "LOCAL", "localhost", "http://host"])
def test_an_unknown_master_is_refused_by_name(master):
    with pytest.raises(ConfigError, match=re.escape(repr(master))):
        command(master=master)


@pytest.mark.parametrize(
    "how", [{"deploy_mode": "cluster"}, {"conf": {"spark.submit.deployMode": "cluster"}}]
)
def test_standalone_cluster_mode_takes_no_secret_conf_since_it_shows_it(how):
    with pytest.raises(ConfigError):
        command(master=MASTERS["spark"], secret_conf={"spark.password": "hunter2"}, **how)


@pytest.mark.parametrize(
    "field", ["jars", "py_files", "files", "archives", "packages", "repositories"]
)
def test_a_comma_in_a_path_is_refused_by_field_and_value(field):
    with pytest.raises(ConfigError, match=f"{field} holds 'one,two'"):
        command(**{field: ["fine", "one,two"]})


def test_command_is_pure(tmp_path):
    block = SparkConfig(conf={"spark.a": 1}, environment={"A": "b"})
    first, second = (block.command("a.py", ["x"], folder=tmp_path, **HOMES) for _ in range(2))
    assert first == second
    first.environment["A"] = "changed"
    assert block.command("a.py", ["x"], folder=tmp_path, **HOMES) == second
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["spark", "yarn", "k8s"])
def test_a_driver_in_the_cluster_is_told_of_no_folder_of_this_machine(kind):
    made = command(master=MASTERS[kind], deploy_mode="cluster")
    assert "my run" not in made.files["spark.properties"].replace("%20", " ")
    mine = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": "hdfs:///logs"}
    assert (
        written(command(master=MASTERS[kind], deploy_mode="cluster", conf=mine)).items()
        >= mine.items()
    )


@pytest.mark.parametrize("row", IN_CLUSTER, ids=[row[0] for row in IN_CLUSTER])
@pytest.mark.parametrize("kind", MASTERS)
@pytest.mark.parametrize("mode", ["client", "cluster"])
def test_an_option_of_cluster_mode_is_refused_elsewhere(row, kind, mode):
    option, value, masters = row
    settings = {"master": MASTERS[kind], "deploy_mode": mode, option: value}
    if kind in masters and mode == "cluster":
        command(**settings)
        return
    with pytest.raises(ConfigError, match=f"(deploy_mode=cluster|{option}) has no meaning"):
        command(**settings)


@pytest.mark.parametrize("where", ["conf", "secret_conf"])
def test_what_a_field_says_cannot_be_said_again_as_a_property(where):
    with pytest.raises(ConfigError, match="use the field driver_memory alone"):
        command(driver_memory="2g", **{where: {"spark.driver.memory": "4g"}})


def test_a_property_that_spark_would_ignore_is_refused():
    with pytest.raises(ConfigError, match=r"conf holds 'hadoop\.x', which Spark ignores"):
        command(conf={"hadoop.x": "1"})


def test_spark_is_told_to_hide_every_secret_property_and_what_it_hides_anyway():
    secret = {"spark.hadoop.fs.s3a.my(key)": "x", "spark.mine": "y"}
    hidden = written(command(secret_conf=secret))["spark.redaction.regex"]
    for name in [*secret, "spark.db.password", "spark.an.access.key"]:
        assert re.search(hidden, name), name
    assert not re.search(hidden, "spark.driver.memory")
    theirs = command(secret_conf=secret, conf={"spark.redaction.regex": "(?i)card"})
    assert re.search(written(theirs)["spark.redaction.regex"], "spark.Card")
    assert "spark.redaction.regex" not in written(command())


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("yarn", "spark.yarn.appMasterEnv."), ("k8s", "spark.kubernetes.driverEnv.")],
)
def test_a_driver_in_the_cluster_gets_its_environment_and_its_tag(kind, prefix):
    made = SparkConfig(
        master=MASTERS[kind],
        deploy_mode="cluster",
        environment={"A": "b"},
        secret_environment={"DB": "pa55word"},
    ).command("app.py", folder=Path("/runs/x"), tag="penstock-1", **HOMES)
    told = written(made)
    assert told[f"{prefix}A"] == "b"
    assert told[f"{prefix}DB"] == "pa55word"
    assert "penstock-1" in told.values()
    assert "pa55word" not in made.shown["spark.properties"]


def test_event_logs_of_a_driver_in_the_cluster_go_where_both_can_reach_them():
    block = SparkConfig(master="yarn", deploy_mode="cluster", shared_folder="hdfs://n/penstock/")
    made = block.command("app.py", folder=Path("/runs/x"), tag="penstock-1", **HOMES)
    assert written(made)["spark.eventLog.dir"] == "hdfs://n/penstock/penstock-1/eventlog"


def test_the_user_hadoop_takes_the_application_for_is_an_option_of_spark_submit():
    made = command(master="yarn", proxy_user="alice", verbose=True)
    assert made.argv[3:6] == ["--proxy-user", "alice", "--verbose"]
