"""Look at this machine's processes through /proc (proc(5)); standard library alone.

Used by the shim, and by a process that knows nothing of a program but its record.
"""

import os

# What every process of a run, and of one program, carries in its environment.
RUN_MARK, JOB_MARK = "PENSTOCK_RUN", "PENSTOCK_JOB"


def start_ticks(pid: int) -> int | None:
    """When `pid` started (clock ticks since boot), which tells it from a later one; None if gone.

    A zombie counts as gone: it runs nothing and holds nothing.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def descendants(root: int) -> set[int]:
    """Every living process below `root`, by the parents that /proc shows now."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        if fields := _stat(pid):
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def in_session(session: int) -> set[int]:
    """Every living process of a session."""
    return {pid for pid in _pids() if (fields := _stat(pid)) and int(fields[3]) == session}


def marked(name: str, value: str) -> set[int]:
    """Every living process of ours, this one excepted, that started with `name=value` set."""
    wanted = f"{name}={value}".encode()
    found = set()
    for pid in _pids():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in file.read().split(b"\0") and _stat(pid):
                    found.add(pid)
        except OSError:
            continue  # another user's, or just gone
    return found - {os.getpid()}


def boot_id() -> str:
    """The machine's boot: after a reboot a pid and its start mean nothing (random(4))."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the state on (proc(5)); None when gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else fields


def signal_all(pids: set[int], number: int) -> set[int]:
    """Send a signal to each that is there; returns those of another user, which we may not."""
    forbidden = set()
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            forbidden.add(pid)
    return forbidden
