"""Loads the entrypoints it is given as a worker does, each in a process of its own, and says for
each, in a line of JSON, what it got. Cancellation and crash hooks are called as the runner does."""

import inspect
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from prefect import Flow
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Cancelling, Crashed

OURS = ("blocks", "flows", "deployments")
MOMENTS = ("on_completion", "on_failure", "on_cancellation", "on_crashed")


def loaded(entrypoint: str) -> dict[str, Any]:
    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    function = inspect.unwrap(flow.fn)
    hooks = {moment: getattr(flow, f"{moment}_hooks") for moment in MOMENTS}
    import blocks

    used = [value for value in function.__globals__.values() if is_block(value)]
    return {
        "entrypoint": entrypoint,
        "name": flow.name,
        "persists": flow.persist_result,
        "guarded": function is not flow.fn,
        "hooks": {
            moment: {hook.__name__: list(inspect.signature(hook).parameters) for hook in those}
            for moment, those in hooks.items()
        },
        "told": [
            call_by_keyword(flow, hooks["on_cancellation"], Cancelling()),
            call_by_keyword(flow, hooks["on_crashed"], Crashed()),
        ],
        "blocks": sorted(block.__name__ for block in used),
        "strangers": [
            f"{block.__module__}.{block.__name__}"
            for block in {*used, *below(Block)}
            if not block.__module__.startswith("prefect")
            and block is not getattr(blocks, block.__name__, None)
        ],
        "files": sorted(
            {inspect.getfile(function)}
            | {
                module.__file__
                for name, module in sys.modules.items()
                if name.split(".")[0] in OURS and module.__file__
            }
        ),
    }


def is_block(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Block)


def below(kind: type[Block]) -> Iterator[type[Block]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def call_by_keyword(flow: Flow[..., Any], hooks: list[Any], state: Any) -> str:
    """Call the hooks for a run in `state`; returns the run's id."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow, state=state)
    for hook in hooks:
        hook(flow=flow, flow_run=run, state=run.state)
    return str(run.id)


# A fork is as good as a new process as long as nothing of ours was loaded before it.
assert not set(OURS) & set(sys.modules)
assert threading.active_count() == 1
for entry in sys.argv[1:]:
    if (child := os.fork()) == 0:
        print(json.dumps(loaded(entry)), flush=True)
        sys.exit()
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{entry} did not load: exit code {code}")
