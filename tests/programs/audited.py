"""Run a flow and note all it does to the machine: `audited.py FLOW PARAMETERS` prints JSON.

Every process, folder, connection and written file that Python's audit events (PEP 578) tell of,
between the start of the flow and its end.
"""

import json
import os
import sys
import tempfile
from importlib import import_module

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod"}

seen: list[tuple[str, str]] = []
watching = False


def hook(event: str, args: tuple[object, ...]) -> None:
    if not watching:
        return
    if event in STARTS | CHANGES | {"socket.connect"}:
        seen.append((event, str(args[1] if event == "socket.connect" else args[0])))
    elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
        seen.append((event, str(args[0])))


tempfile.gettempdir()  # Python looks for it once, by writing a file
module, _, name = sys.argv[1].rpartition(".")
flow = getattr(import_module(module), name)
sys.addaudithook(hook)
watching = True
state = flow(**json.loads(sys.argv[2]), return_state=True)
watching = False
run = str(state.state_details.flow_run_id)
print(json.dumps({"run": run, "result": state.result(), "seen": seen}))
