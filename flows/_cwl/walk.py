"""Walk a CWL process: cwltool says which jobs there are, we say when and where each runs.

    process.job() ──► job ──► name from its callbacks ──► free cores? ──► run(name, job) in a thread
         ▲                                                                     │
         └────────────── real callback, in this one thread only ◄── outputs ───┘

cwltool's callbacks and generators are not safe for threads, so only the thread that walks touches
them: a worker hands back outputs, never calls.
"""

import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import psutil
from cwltool.context import RuntimeContext
from cwltool.errors import WorkflowException
from cwltool.executors import JobExecutor
from cwltool.process import Process, shortname
from cwltool.workflow_job import ReceiveScatterOutput, WorkflowJob, WorkflowJobStep

Outputs = dict[str, Any]
# Runs one job; returns its outputs and cwltool's status, success unless something went wrong.
RunJob = Callable[[str, Any, RuntimeContext], tuple[Outputs, str]]


@dataclass
class Origin:
    """Where in the workflow a job belongs."""

    label: str  # outer[2]/align[0]/sort
    step: str | None  # the top-level step it is part of
    scatter: ReceiveScatterOutput | None  # the outermost scatter of that step


@dataclass
class _Ended:
    origin: Origin
    callback: Callable[[Outputs, str], None]
    cores: float
    outputs: Outputs = field(default_factory=dict)
    status: str = "permanentFail"
    error: BaseException | None = None


class Walker(JobExecutor):
    """Runs what is free, in parallel within the cores, and tells how far each step has come."""

    def __init__(
        self,
        run_job: RunJob,
        *,
        parallel: int | None,
        on_plan: Callable[[list[str]], None],
        on_share: Callable[[str, float], None],
        on_skipped: Callable[[str], object],
        abort: Callable[[], None],
    ) -> None:
        super().__init__()
        self._run_job = run_job
        self._cores = float(parallel or len(psutil.Process().cpu_affinity()))
        self._ram = int(psutil.virtual_memory().available / 2**20)
        self._free = self._cores
        self._on_plan, self._on_share, self._on_skipped = on_plan, on_share, on_skipped
        self._abort = abort
        self._ended: SimpleQueue[_Ended] = SimpleQueue()
        self._running = 0
        self._workflow: WorkflowJob | None = None
        self._seen: set[str] = set()

    def run_jobs(
        self,
        process: Process,
        job_order_object: Any,
        logger: logging.Logger,
        runtime_context: RuntimeContext,
    ) -> None:
        runtime_context.select_resources = self._select_resources
        with ThreadPoolExecutor(int(self._cores), thread_name_prefix="cwl") as pool:
            try:
                self._walk(process, job_order_object, runtime_context, pool)
            except BaseException:
                self._abort()  # leaving the pool waits for its threads, and they for programs
                raise

    def _walk(
        self,
        process: Process,
        job_order: Any,
        context: RuntimeContext,
        pool: ThreadPoolExecutor,
    ) -> None:
        for job in process.job(job_order, self.output_callback, context):
            if job is None:
                if not self._running:
                    break  # a dead end: what is left waits for something that failed
                self._finish(self._ended.get())
            elif isinstance(job, WorkflowJob):
                self._enter(job, context)
            else:
                self._take(job, context, pool)
            self._drain()
            self._note_steps()
        while self._running:
            self._finish(self._ended.get())
        self._note_steps()

    def _enter(self, job: WorkflowJob, context: RuntimeContext) -> None:
        job.run(context)
        if self._workflow is None:
            self._workflow = job
            self._on_plan([shortname(step.id) for step in job.steps])

    def _take(self, job: Any, context: RuntimeContext, pool: ThreadPoolExecutor) -> None:
        origin = origin_of(job.output_callback)
        if origin.step:
            self._seen.add(origin.step)
        if job.outdir is not None:
            self.output_dirs.add(job.outdir)
        cores = float(job.builder.resources.get("cores", 1)) if hasattr(job, "builder") else 1.0
        ended = _Ended(origin, job.output_callback, min(cores, self._cores))
        # Back-pressure: cwltool makes three folders for a job when it yields it, not when it runs.
        while self._free < ended.cores:
            self._finish(self._ended.get())
        self._free -= ended.cores
        self._running += 1
        # Prefect finds the run that a task belongs to in the context.
        pool.submit(contextvars.copy_context().run, self._work, ended, job, context)

    def _work(self, ended: _Ended, job: Any, context: RuntimeContext) -> None:
        try:
            ended.outputs, ended.status = self._run_job(ended.origin.label, job, context.copy())
        except BaseException as error:
            ended.error = error
        self._ended.put(ended)

    def _drain(self) -> None:
        while not self._ended.empty():
            self._finish(self._ended.get())

    def _finish(self, ended: _Ended) -> None:
        """Back in the walking thread: give cwltool the outputs, and say how far the step is."""
        self._running -= 1
        self._free += ended.cores
        if ended.error:
            raise ended.error
        ended.callback(ended.outputs, ended.status)
        if ended.origin.step and ended.status == "success":
            scatter = ended.origin.scatter
            share = scatter.completed / scatter.total if scatter and scatter.total else 0.5
            self._on_share(ended.origin.step, min(share, 0.99))

    def _note_steps(self) -> None:
        """A step that cwltool calls completed is done; one that never had a job was skipped."""
        for step in self._workflow.steps if self._workflow else []:
            name = shortname(step.id)
            if step.completed and name not in self._seen:
                self._seen.add(name)
                self._on_skipped(name)
            if step.completed:
                self._on_share(name, 1.0)

    def _select_resources(
        self, request: dict[str, int | float], _: RuntimeContext
    ) -> dict[str, int | float]:
        limits = {"cores": self._cores, "ram": float(self._ram)}
        chosen: dict[str, int | float] = {}
        for name, limit in limits.items():
            if request[f"{name}Min"] > limit:
                raise WorkflowException(
                    f"a job asks for {request[f'{name}Min']} {name}, this machine has {limit:.0f}"
                )
            chosen[name] = min(request[f"{name}Max"], limit)
        chosen["tmpdirSize"] = request["tmpdirMin"]
        chosen["outdirSize"] = request["outdirMin"]
        return chosen


def origin_of(callback: Any) -> Origin:
    """Follow a job's chain of callbacks up to the workflow: its name, step and scatter.

    A job's own name counts jobs in the order they were made, over the whole process; only the
    callbacks know the scatter index and the sub-workflow.
    """
    parts: list[str] = []
    indexes = ""
    step: str | None = None
    scatter: ReceiveScatterOutput | None = None
    outermost: ReceiveScatterOutput | None = None
    while hasattr(callback, "func"):
        owner = getattr(callback.func, "__self__", None)
        if isinstance(owner, ReceiveScatterOutput):
            indexes = f"[{callback.args[0]}]{indexes}"
            scatter = owner
            callback = owner.output_callback
        elif isinstance(owner, WorkflowJob) and isinstance(callback.args[0], WorkflowJobStep):
            step = shortname(callback.args[0].id)
            parts.insert(0, f"{step}{indexes}")
            outermost, scatter, indexes = scatter, None, ""
            callback = callback.args[2]
        else:
            callback = callback.args[0] if callback.args else None
    return Origin("/".join(parts) or "tool", step, outermost)
