"""Whether what a run keeps can be read by another: a local folder is its machine's alone.

A container's own disk goes with it. Then a retry repeats finished tasks, a cancelled run's hooks
find nothing, and the result of a run that succeeded is lost.
"""

from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem

from blocks.errors import ConfigError
from flows._run.api import api

OF_THIS_MACHINE = ("process", "none", None)  # types of work pools whose runs share one disk
SETTING = "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"


def need_shared_results(context: FlowRunContext | None) -> None:
    """Raise ConfigError for a run that is somewhere else and keeps its results on a local disk.

    Asks the API for the type of the run's work pool, and only where that matters.
    """
    flow_run = context.flow_run if context else None
    if context is None or flow_run is None or not flow_run.work_pool_name:
        return
    storage = context.result_store.result_storage
    if not context.persist_result or not isinstance(storage, LocalFileSystem):
        return
    if (kind := api().read_work_pool(flow_run.work_pool_name).type) not in OF_THIS_MACHINE:
        raise ConfigError(
            f"results would be kept in {storage.basepath}, a folder of this machine, and runs of "
            f"the work pool {flow_run.work_pool_name!r} ({kind}) are on others: name a storage "
            f"block that all can reach in {SETTING}, in the pool's environment"
        )
