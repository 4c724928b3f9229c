"""The outbox: a change of state is on disk before the hook that saw it returns.

hook ──put()──► outbox/<writer>.jsonl ──► courier (woken by a bell, started if there is none)

A line of a file of the process's own costs microseconds and survives SIGKILL: what must survive
the machine is sent again by `redeliver`. Nothing waits in memory.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from blocks._changes import Change
from blocks._home import home, private, write_private
from flows._reports.bell import Ringer, Waker
from flows._reports.writer import Writer

API = "api"  # the file that says for which Prefect API a folder is
MOST = 4 << 20  # bytes of one writer that are read at once
LONGEST_LOG = 1 << 20  # bytes of the courier's log until it is begun anew
_CONTAINED = ("KUBERNETES_SERVICE_HOST", "ECS_CONTAINER_METADATA_URI_V4")
_ROOT = Path(__file__).parents[2]  # where the packages blocks and flows are

# Held over "what is the progress now?" and `put`, so that progress never overtakes itself.
ORDER = threading.RLock()


def folder() -> Path:
    """The private folder of reports for the Prefect API in use: outbox, ledger, lock and bell."""
    from prefect.settings import get_current_settings

    api = str(get_current_settings().api.url or "")
    place = private(home() / "reports" / sha256(api.encode()).hexdigest()[:12])
    if not (place / API).exists():
        write_private(place / API, api)
    return place


def folders() -> list[Path]:
    """Every such folder of this installation."""
    return [path.parent for path in sorted(home().glob(f"reports/*/{API}"))]


def put(*changes: Change, soon: bool = False) -> None:
    """Write changes down, and see to it that a courier comes for them: now, or as soon as may be.

    Raises OSError when they could not be written, and leaves no half a line.
    """
    me = _me()
    with ORDER:
        _own_file(*me).append(b"".join(change.as_line() for change in changes))
        if soon:
            _waker(*me).wake()
    if not soon:
        _ring(me)


def _ring(me: tuple[int, str]) -> None:
    ringer = _ringer(*me)
    if not ringer.ring():
        call_courier(_folder(*me))
        ringer.renew()


def flush(flow_run_id: object) -> None:
    """Where this machine ends with the run, wait some seconds for the run's last report to go.

    What does not go in time is lost with the container, and sent again by `redeliver`.
    """
    contained = any(name in os.environ for name in _CONTAINED)
    seconds = float(os.environ.get("PENSTOCK_FLUSH") or (10 if contained else 0))
    deadline = time.monotonic() + seconds
    if seconds > 0:
        from flows._reports.ledger import Ledger

        ledger = Ledger(_folder(*_me()))
        mine = _own_file(*_me())
        while time.monotonic() < deadline and not (
            ledger.offsets().get(mine.path.name, 0) >= mine.size
            and ledger.settled(str(flow_run_id))
        ):
            time.sleep(0.05)  # another process's work: its end is a row, not an event
        ledger.close()


def call_courier(place: Path) -> None:
    """Wake the courier of `place`, or start one."""
    with _lock(place) as lock:
        if lock is not None:
            _start(place, lock)
    with Ringer(place) as ringer:  # nobody listens yet? It looks into the outbox when it starts
        ringer.ring()


def waits(place: Path, offsets: dict[str, int]) -> bool:
    """Whether there is anything in the outbox since `offsets`."""
    return any(lines for _, lines, _, _ in take(place, offsets))


def written(place: Path, offsets: dict[str, int], state: str) -> bool:
    """Whether the change with that state's id is in the outbox since `offsets`."""
    found = (line for _, lines, _, _ in take(place, offsets) for line in lines)
    return any(state.encode() in line for line in found)


def take(place: Path, offsets: dict[str, int]) -> Iterator[tuple[Path, list[bytes], int, bool]]:
    """What each writer has added since `offsets`: its file, whole lines, the new offset, and
    whether that is all there will ever be: then the file can be removed.
    """
    for path in sorted((place / "outbox").glob("*.jsonl")):
        with path.open("rb") as file:
            gone = _locked(file.fileno())  # asked first: what it wrote before is read below
            file.seek(offset := offsets.get(path.name, 0))
            data = file.read(MOST).partition(b"\0")[0]
            whole = data[: data.rfind(b"\n") + 1]
            yield path, whole.splitlines(), offset + len(whole), gone and len(data) < MOST


@contextmanager
def _lock(place: Path) -> Iterator[int | None]:
    """The courier's lock, if nobody has it; a courier keeps it by inheriting the descriptor."""
    fd = os.open(place / "courier.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield fd if _locked(fd) else None
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(place: Path, lock: int) -> None:
    """Start a courier: it has a session of its own and nothing of ours but the lock."""
    from prefect.settings import get_current_settings

    dropped = ("PREFECT__", "PENSTOCK_RUN", "PENSTOCK_JOB")  # what says "I belong to that run"
    environment = {n: v for n, v in os.environ.items() if not n.startswith(dropped)}
    code = lasting(_ROOT)
    path = [str(code), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= get_current_settings().to_environment_variables(exclude_unset=True)
    environment |= {"PENSTOCK_HOME": str(home()), "PYTHONPATH": os.pathsep.join(path)}
    if api := (place / API).read_text():
        environment["PREFECT_API_URL"] = api
    _started[:] = [one for one in _started if one.poll() is None]  # else they stay as zombies
    with (place / "courier.log").open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        if log.tell() > LONGEST_LOG:
            log.truncate(0)
        _started.append(
            subprocess.Popen(
                [sys.executable, "-m", "flows._reports.courier", str(place), str(lock)],
                env=environment,
                cwd=None if code == _ROOT else code,  # Python looks there first
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],
            )
        )


def lasting(root: Path) -> Path:
    """Where the packages in `root` stay: there, or in a copy of ours.

    A worker may load a flow from a temporary copy of its storage, which goes with the run, and a
    courier imports from it long after.
    """
    if not root.is_relative_to(Path(tempfile.gettempdir()).resolve()):
        return root
    files = sorted(p for name in ("blocks", "flows") for p in (root / name).rglob("*.py"))
    texts = {path.relative_to(root): path.read_bytes() for path in files}
    digest = sha256(b"".join(str(path).encode() + text for path, text in texts.items()))
    copy = private(home() / "code") / digest.hexdigest()[:12]
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(dir=copy.parent, prefix=".draft-"))
        for path, text in texts.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(text)
        try:
            draft.rename(copy)
        except OSError:  # another process was quicker
            shutil.rmtree(draft)
    return copy


_started: list[subprocess.Popen[bytes]] = []  # kept, or Python would warn of a child not waited for


def _me() -> tuple[int, str]:
    """What the caches below hold for: a forked process has its own file, another home its own."""
    return os.getpid(), os.environ.get("PENSTOCK_HOME", "")


@cache
def _folder(_pid: int, _home: str) -> Path:
    return folder()


@cache
def _own_file(pid: int, home: str) -> Writer:
    return Writer(private(_folder(pid, home) / "outbox") / f"{pid}-{uuid4().hex[:12]}.jsonl")


@cache
def _ringer(pid: int, home: str) -> Ringer:
    return Ringer(_folder(pid, home))


@cache
def _waker(pid: int, home: str) -> Waker:
    return Waker(lambda: _ring((pid, home)))
