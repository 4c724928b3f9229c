"""`python tether.py PROGRAM ARGS…`: become a program that dies with its parent.

For the few helpers that need pipes to the engine and so cannot be started by the shim. Run by path,
isolated, with the standard library alone; setting this between fork and exec would be unsafe in an
engine that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it died before we could be told
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is the point
