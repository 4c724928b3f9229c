"""A disk that is full for a while costs no report, and no run its outcome."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from flows._reports.gaps import LABEL

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "programs" / "narrow.py"
pytestmark = pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="needs user namespaces",
)


@pytest.mark.full
@pytest.mark.parametrize(("room", "tasks"), [("again", 21), ("too-late", 20)])
def test_what_could_not_be_written_is_told_at_the_end_of_the_run(
    installation, api, eventually, tmp_path, room, tasks
):
    place = tmp_path / "reports" / sha256(installation.api_url.encode()).hexdigest()[:12]
    place.mkdir(parents=True)
    name = f"narrow-{uuid4().hex[:8]}"
    small = f'mount -t tmpfs -o size=2m small {place} && exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", small, sys.executable, str(PROGRAM), name, room],
        env={
            **installation.environment,
            "PENSTOCK_HOME": str(tmp_path),
            "PENSTOCK_COURIER_IDLE": "1",
            "PREFECT_HOME": os.environ["PREFECT_HOME"],
            "PREFECT_API_URL": installation.api_url,
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == sum(range(tasks))
    assert "No space left" in done.stderr
    mine = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    (run,) = api.read_flow_runs(flow_run_filter=mine)
    assert run.state.is_completed()
    assert LABEL in run.labels
    names = ["works", *(f"works-{n}" for n in range(1, tasks))]
    all_of_them = {(one, word) for one in names for word in ("running", "success")}
    eventually(lambda: set(installation.words(run.id)) == all_of_them, seconds=60)
    eventually(lambda: len(installation.told(run.id, "results")) == 1)
