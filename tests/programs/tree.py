"""A program as bad as they come: it and its grandchild ignore SIGTERM, the latter in a session of
its own, with an empty environment. Prints the grandchild's pid, then waits: for the seconds that
its argument names, or nearly for ever. What it leaves then is the grandchild."""

import signal
import subprocess
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
GRANDCHILD = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('up', flush=True)
time.sleep(900)
"""
child = subprocess.Popen(
    [sys.executable, "-c", GRANDCHILD], start_new_session=True, env={}, stdout=subprocess.PIPE
)
assert child.stdout
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 900)
