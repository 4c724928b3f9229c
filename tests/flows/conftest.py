"""Fixtures of the tests that run flows.

Nothing here imports Prefect: it would read its settings before the session's are chosen.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Installation

if TYPE_CHECKING:
    from tests.ear import Ear


@pytest.fixture
def ear(api: Any, tmp_path: Path) -> Iterator["Ear"]:
    from tests.ear import Ear

    mine = Ear(tmp_path)
    yield mine
    mine.receiver.down()
    if found := [d for d in api.read_block_documents() if d.name == mine.name]:
        api.delete_block_document(found[0].id)


@pytest.fixture
def deaf(installation: Installation) -> Iterator[None]:
    """The relay stands still, as if there were none."""
    relay = json.loads((installation.home / "services.json").read_text())["relay"]["pid"]
    os.kill(relay, signal.SIGSTOP)
    yield
    os.kill(relay, signal.SIGCONT)
