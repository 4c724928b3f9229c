"""Start, watch, stop and reap programs for an engine that may be killed at any moment.

    engine ──socket, one JSON object a line──► shim ──fork, exec──► programs, each its own session
                                                │
                                                └──► the job's folder: its pid, then its end

The engine starts one of these per root run, by path, with the standard library alone. It is the
sub-reaper of all it started: whatever a program leaves behind, also with setsid, becomes its child.
It ends when the engine's end of the socket closes, and nothing it started outlives it.

Requests:  {"do": "start", "id", "argv", "env", "cwd", "stdin", "stdout", "stderr", "folder",
            "limit", "mark", "grace"}  answered by {"id", "pid", "start"} or {"id", "error"}
           {"do": "stop", "id", "grace"}
Events:    {"id", "gone_at", "written", "outcome": {"code", "signal", "max_rss", "cpu", "seconds",
            "timed_out", "stopped", "left"}}

Of a job's files the engine writes the record, the shim what it saw: `started.json`, `ended.json`.
So they are true whoever was killed, and a program that ended while nobody looked has its end
written down. Only an end that the shim could not write, or did not live to see, the engine adds.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if not __package__:  # started by path and isolated: so it finds the one module of ours it needs
    sys.path.append(str(Path(__file__).parents[2]))

from flows._run.procfs import JOB_MARK, descendants, in_session, marked, signal_all, start_ticks

PR_SET_CHILD_SUBREAPER = 36
STARTED, ENDED = "started.json", "ended.json"
GRACE = 2.0  # seconds between SIGTERM and SIGKILL unless a request says otherwise
PRESSED = 10.0  # seconds of SIGKILL after which what is still there is called left


class Program:
    """One started program and what is to be said of its end."""

    def __init__(self, request: dict[str, Any], pid: int) -> None:
        self.id: str = request["id"]
        self.pid = pid
        self.mark: str = request["mark"]
        self.folder: str = request["folder"]
        self.began = time.monotonic()
        limit = request.get("limit")
        self.deadline: float | None = self.began + limit if limit else None
        self.grace: float = request.get("grace") or GRACE
        self.kill_at: float | None = None
        self.give_up_at: float | None = None
        self.killed: set[tuple[int, int]] = set()  # what got SIGKILL: its pid and start
        self.forbidden: set[int] = set()  # other users' processes: we may not end them
        self.timed_out = self.stopped = False
        self.end: dict[str, Any] | None = None  # known once the program itself is reaped


class Shim:
    """The loop: requests in, programs out, ends reported, nothing left."""

    def __init__(self, engine: socket.socket) -> None:
        self.engine = engine
        self.buffer = b""
        self.programs: dict[str, Program] = {}
        self.running: dict[int, Program] = {}
        self.closing = False

    def run(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._close)
        for ours_to_ignore in (signal.SIGINT, signal.SIGHUP):
            # Not SIG_IGN: what is ignored here would be ignored by every program, too.
            signal.signal(ours_to_ignore, lambda *_: None)
        poll = select.poll()
        poll.register(self.engine, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while not self.closing:
            for fd, _ in poll.poll(self._patience()):
                if fd == wake_read:
                    os.read(wake_read, 4096)
                else:
                    self._read()
            self._reap()
            self._press()
        self._end_all()

    def _close(self, *_: object) -> None:
        self.closing = True

    def _patience(self) -> float | None:
        """Milliseconds until a time limit or a grace period is over; None without one."""
        due = [t for p in self.programs.values() for t in (p.deadline, p.kill_at) if t is not None]
        return max(0.0, (min(due) - time.monotonic()) * 1000) if due else None

    def _read(self) -> None:
        try:
            data = self.engine.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self.closing = True
            return
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "start":
                self._start(request)
            elif program := self.programs.get(request["id"]):
                program.stopped = True
                self._terminate(program, request.get("grace"))

    def _start(self, request: dict[str, Any]) -> None:
        files: list[Any] = []
        try:
            files.append(open(request["stdin"] or os.devnull, "rb"))  # noqa: SIM115 - closed below
            for name in ("stdout", "stderr"):
                # Appending, so that two streams may share one file.
                fd = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                files.append(os.fdopen(fd, "wb"))
            child = subprocess.Popen(
                request["argv"],
                env=request["env"],
                cwd=request["cwd"],
                stdin=files[0],
                stdout=files[1],
                stderr=files[2],
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._tell({"id": request["id"], "error": str(error)})
            return
        finally:
            for file in files:
                file.close()
        child.returncode = 0  # reaped by wait4 below: Popen must neither wait nor warn
        program = Program(request, child.pid)
        self.programs[program.id] = self.running[child.pid] = program
        started = {"pid": child.pid, "start": start_ticks(child.pid)}
        _note(program.folder, STARTED, started)
        self._tell({"id": program.id, **started})

    def _reap(self) -> None:
        ended = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended = True
            if program := self.running.pop(pid, None):
                program.deadline = None  # it ended in time; what it left has its grace
                code = os.waitstatus_to_exitcode(status)
                program.end = {
                    "code": code if code >= 0 else None,
                    "signal": signal.Signals(-code).name if code < 0 else None,
                    "max_rss": usage.ru_maxrss * 1024,
                    "cpu": usage.ru_utime + usage.ru_stime,
                    "seconds": time.monotonic() - program.began,
                }
        if ended:
            self._settle()

    def _settle(self) -> None:
        """Report programs that ended and left nothing; press those that left something."""
        ended = [p for p in self.programs.values() if p.end is not None]
        strays = self._strays() if ended else set()
        for program in ended:
            if program.kill_at:
                # One that is just dying shows no environment, nor whose child it is: look at it.
                dying = {pid for pid, start in program.killed if start_ticks(pid) == start}
                left = self._kin(program) | dying
            else:
                left = strays and strays & self._kin(program)
            if not left - program.forbidden:
                self._report(program, left)
            elif program.kill_at is None:
                self._terminate(program, None)

    def _strays(self) -> set[int]:
        """What ended programs left: an orphan becomes our child, and its children come with it."""
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            direct = {int(pid) for pid in file.read().split()} - set(self.running)
        return {pid for stray in direct for pid in {stray, *descendants(stray)}}

    def _members(self, program: Program) -> set[int]:
        return descendants(program.pid) | self._kin(program)

    def _kin(self, program: Program) -> set[int]:
        """Processes of `program` wherever they hang: by its session, or by the mark it gave."""
        return in_session(program.pid) | marked(JOB_MARK, program.mark)

    def _terminate(self, program: Program, grace: float | None) -> None:
        if program.kill_at is None:
            program.kill_at = time.monotonic() + (program.grace if grace is None else grace)
            program.give_up_at = program.kill_at + PRESSED
            program.forbidden |= signal_all(self._members(program), signal.SIGTERM)

    def _press(self) -> None:
        """Act on what is due: time limits, and the end of grace periods."""
        now = time.monotonic()
        for program in list(self.programs.values()):
            if program.deadline is not None and now >= program.deadline:
                program.deadline, program.timed_out = None, True
                self._terminate(program, None)
            if program.kill_at is not None and now >= program.kill_at:
                program.kill_at = now + 0.1  # again, until nothing is left: it may have forked
                members = self._members(program)
                program.killed |= {(pid, start) for pid in members if (start := start_ticks(pid))}
                program.forbidden |= signal_all(members, signal.SIGKILL)
                self._settle()
                if program.id in self.programs and now >= (program.give_up_at or now):
                    self._report(program, self._members(program))

    def _report(self, program: Program, left: set[int]) -> None:
        outcome = {
            **(program.end or {"code": None}),
            "timed_out": program.timed_out,
            "stopped": program.stopped,
            "left": sorted(left),
        }
        end = {"outcome": outcome, "gone_at": datetime.now(UTC).isoformat(timespec="seconds")}
        del self.programs[program.id]
        self._tell({"id": program.id, **end, "written": _note(program.folder, ENDED, end)})

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self.engine.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.closing = True

    def _end_all(self) -> None:
        """End everything below us: first politely, then not, until nothing is there that we may."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # waited for below
        for program in self.programs.values():
            program.stopped = True
        forbidden = signal_all(descendants(os.getpid()), signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while (now := time.monotonic()) < deadline + PRESSED:
            if not (left := descendants(os.getpid()) - forbidden):
                break
            if now >= deadline:
                forbidden |= signal_all(left, signal.SIGKILL)
            signal.sigtimedwait({signal.SIGCHLD}, 0.05)
            self._reap()
        self._reap()
        left = descendants(os.getpid())
        for program in list(self.programs.values()):
            self._report(program, left and left & self._members(program))


def _note(folder: str, name: str, facts: dict[str, Any]) -> bool:
    """Write a new file by rename: a reader sees none or all of it.

    A new name each, since a rename over an old file waits for the disk (ext4's auto_da_alloc).
    False when it could not be written: a full disk must end no program.
    """
    path = f"{folder}/{name}"
    draft = path + ".new"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(facts, file)
        os.rename(draft, path)
    except OSError:
        return False
    return True


def main() -> None:
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("this kernel has no sub-reapers (Linux 3.4 or newer is needed)")
    os.chdir("/")
    Shim(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
