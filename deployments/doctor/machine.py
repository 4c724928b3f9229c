"""What this machine and this checkout have: nothing here asks a server."""

import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement

from blocks._home import ROOM, ROOM_TO_SPARE, home
from deployments.doctor.finding import Check, Finding, Level
from deployments.local import service
from deployments.local.up import LISTENER_PORT, SERVER_PORT

DISTRIBUTION = "penstock-flows"
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that the tests run on


def python() -> Iterator[Finding]:
    oldest, newest = PYTHONS
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if oldest <= sys.version_info[:2] <= newest:
        yield Finding("ok", "Python", found)
    else:
        tested = " to ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        yield Finding("warn", "Python", found, f"use {tested}, which are tested")


def imports() -> Iterator[Finding]:
    places: dict[str, list[str]] = {}
    for name in ("blocks", "flows", "deployments"):
        spec = find_spec(name)
        origin = str(Path(spec.origin).parent.parent) if spec and spec.origin else "nowhere"
        places.setdefault(origin, []).append(name)
    found = "; ".join(f"{', '.join(names)} from {place}" for place, names in places.items())
    if len(places) > 1:
        fix = f"others have such names, too: see what stands first in {sys.executable}'s sys.path"
        yield Finding("bad", "imports", found, fix)
    elif str(Path.cwd()) not in places:
        fix = f"{Path.cwd()} is not what runs: change to the checkout, or install this one"
        yield Finding("warn", "imports", found, fix)
    else:
        yield Finding("ok", "imports", found)


def versions() -> Iterator[Finding]:
    fix = "pip install -c constraints.txt -e ."
    needed = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    needed = [one for one in needed if not one.marker or one.marker.evaluate({"extra": ""})]
    unmet = [
        f"{one} (found {_version(one.name)})"
        for one in needed
        if not one.specifier.contains(_version(one.name) or "0", prereleases=True)
    ]
    if unmet:
        yield Finding("bad", "versions", f"not met: {', '.join(unmet)}", fix)
    pins = Path("constraints.txt")
    if not pins.is_file():
        if not unmet:
            yield Finding("ok", "versions", f"all {len(needed)} requirements are met")
        return
    pinned = dict(line.split("==") for line in pins.read_text().splitlines() if "==" in line)
    different = [
        f"{name} {found} (pinned {wanted})"
        for name, wanted in pinned.items()
        if (found := _version(name)) not in (None, wanted)
    ]
    if different:
        yield Finding("warn", "versions", ", ".join(different), fix)
    elif not unmet:
        yield Finding("ok", "versions", "as constraints.txt has them")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def java() -> Iterator[Finding]:
    yield Finding("ok", "Java", str(resolve_name("flows._spark.java:find_java")()))


def node() -> Iterator[Finding]:
    yield Finding("ok", "Node", str(resolve_name("flows._cwl.programs:node")()))


def files() -> Iterator[Finding]:
    folder = home()
    with tempfile.TemporaryFile(dir=folder):
        mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        found = f"{folder} is open to others (mode {mode:o})"
        yield Finding("bad", "files", found, f"chmod 700 {folder}")
    else:
        yield Finding("ok", "files", f"{folder} is writable and private")
    free = shutil.disk_usage(folder).free
    level: Level = "bad" if free < ROOM else "warn" if free < ROOM_TO_SPARE else "ok"
    fix = "" if level == "ok" else "make room, or set PENSTOCK_HOME to a folder on another disk"
    yield Finding(level, "disk", f"{free / (1 << 30):.1f} GB free at {folder}", fix)


def ports() -> Iterator[Finding]:
    listening = {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.status == psutil.CONN_LISTEN
    }
    services = service.known()
    for name, usual in (("server", SERVER_PORT), ("listener", LISTENER_PORT)):
        running = services.get(name)
        if running is None and name == "server" and "worker" in services:
            continue  # the worker works for a server elsewhere
        port = (running and urlsplit(running.url).port) or usual
        holder = _program(listening[port]) if port in listening else "nobody"
        if running is None:
            fix = "`penstock up` starts it" + ("" if holder == "nobody" else ", on another port")
            yield Finding("warn", name, f"is not up; port {port} is held by {holder}", fix)
        elif listening.get(port) in _family(running):
            yield Finding("ok", name, f"listens on port {port} (process {running.pid})")
        else:
            found = f"process {running.pid} is up, but its port {port} is held by {holder}"
            yield Finding("bad", name, found, "`penstock down`, then `penstock up`")


def _family(running: service.Service) -> set[int]:
    process = running.process()
    children = process.children(recursive=True) if process else []
    return {running.pid, *(child.pid for child in children)}


def _program(pid: int | None) -> str:
    if pid is None:
        return "a program of another user"
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"


CHECKS: dict[str, Check] = {
    "Python": python,
    "imports": imports,
    "versions": versions,
    "Java": java,
    "Node": node,
    "files": files,
    "ports": ports,
}
