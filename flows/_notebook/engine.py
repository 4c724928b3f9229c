"""papermill's engine with our manager: saved by rename, told cell by cell, never left `running`."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

NAME = "penstock"
INTERVAL = 1.0  # seconds between two saves while cells run

# Called with the number of cells done, and of all cells.
OnCell = Callable[[int, int], None]


class Manager(NotebookExecutionManager):  # type: ignore[misc]  # papermill has no types
    """Keeps the output notebook and its metadata; papermill's semantics, our way of saving."""

    def __init__(self, nb: Any, output_path: str, on_cell: OnCell) -> None:
        self._on_cell = on_cell
        self._saved_at = 0.0
        self._final = False
        super().__init__(nb, output_path=output_path, progress_bar=False, autosave_cell_every=1)

    def save(self, **kwargs: Any) -> None:
        """Write the notebook by rename, at most once a second and always at the end."""
        self.last_save_time = self.now()
        if not self._final and time.monotonic() - self._saved_at < INTERVAL:
            return
        path = Path(self.output_path)
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(str(nbformat.writes(self.nb)), encoding="utf-8")
        os.replace(draft, path)
        self._saved_at = time.monotonic()

    def cell_start(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        super().cell_start(cell, cell_index, **kwargs)
        self._on_cell(cell_index or 0, len(self.nb.cells))

    def cell_complete(self, cell: Any, cell_index: int | None = None, **kwargs: Any) -> None:
        if sys.exc_info()[0] is not None:
            # papermill calls this from `finally`: a cell that was cut off has not completed.
            cell.metadata.papermill["status"] = self.FAILED
        super().cell_complete(cell, cell_index, **kwargs)
        self._on_cell((cell_index or 0) + 1, len(self.nb.cells))

    def finish(self, ended_well: bool) -> None:
        """The last save. After a bad end no cell is called completed that never ran."""
        self._final = True
        if ended_well:
            self.notebook_complete()
            return
        self.nb.metadata.papermill["end_time"] = self.now().isoformat()
        self.nb.metadata.papermill["exception"] = True
        for cell in self.nb.cells:
            if cell.metadata.papermill["status"] == self.RUNNING:
                cell.metadata.papermill["status"] = self.FAILED
        self.save()


class Engine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
    """papermill's nbclient engine under our manager."""

    @classmethod
    def execute_notebook(  # type: ignore[no-untyped-def]  # papermill's own signature
        cls, nb, kernel_name, output_path=None, on_cell=None, **kwargs
    ):
        for option in ("progress_bar", "autosave_cell_every"):
            kwargs.pop(option, None)
        manager = Manager(nb, output_path, on_cell)
        manager.notebook_start()
        ended_well = False
        try:
            cls.execute_managed_notebook(manager, kernel_name, **kwargs)
            ended_well = not manager.nb.metadata.papermill["exception"]
        finally:
            manager.finish(ended_well)
        return manager.nb


papermill_engines.register(NAME, Engine)
