"""A flow whose disk for reports is full for a while, or until after its end.

Called as `narrow.py NAME again|too-late`; the run gets that name.
"""

import sys
from contextlib import suppress
from pathlib import Path

from prefect import flow

from flows import flow_hooks, guard, job_task
from flows._reports import outbox

PLACE = outbox.folder()
FILL = PLACE / "fill"


@job_task
def works(n: int) -> int:
    return n


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            continue


@flow(flow_run_name=sys.argv[1], **flow_hooks())
@guard
def narrow() -> list[int]:
    done = [works(0)]
    fill(FILL)
    done += [works(n) for n in range(1, 20)]  # the last page of the file takes some of them
    if sys.argv[2] == "again":
        FILL.unlink()
        done.append(works(20))
    return done


if __name__ == "__main__":
    print(sum(narrow()))
    FILL.unlink(missing_ok=True)
    for courier in outbox._started:  # its disk goes with the last process that sees it
        courier.wait(90)
