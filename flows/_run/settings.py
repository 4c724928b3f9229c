"""The blocks of a run: each as it was when the run first asked for it."""

import threading
from typing import TypeVar

from prefect.blocks.core import Block

from blocks._load import load
from flows._run.mask import learn, secrets_in

B = TypeVar("B", bound=Block)


class Settings:
    """Blocks by type and name, loaded once: a block edited in the UI applies to the next run.

    A retry in a new process looks anew: whoever mended a block wants it used.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[type[Block], str], Block] = {}
        self._lock = threading.Lock()

    def get(self, kind: type[B], name: str) -> B:
        """The block `name` of type `kind`; raises BlockMissing or ConfigError.

        Its secrets are masked in the log of this process, and in what it reports, from now on.
        """
        with self._lock:
            if (block := self._blocks.get((kind, name))) is None:
                block = self._blocks[kind, name] = load(kind, name)
                learn(secrets_in(block))
        assert isinstance(block, kind)  # noqa: S101 - for the type checker alone
        return block
