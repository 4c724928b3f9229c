"""How notebooks are executed."""

import json
import sys
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl

from blocks._command import Command, EnvironmentFields

SPEC = "notebook.json"


class NotebookConfig(EnvironmentFields, Block):
    """How notebooks are executed.

    Example:
        ```python
        from blocks import NotebookConfig

        config = NotebookConfig.load("BLOCK_NAME")
        NotebookConfig(kernel=config.kernel, time_limit=600).save("short")
        ```
    """

    _block_type_name = "Notebook Config"
    _block_type_slug = "notebook-config"
    _description = "How notebooks are executed."
    _documentation_url = HttpUrl("https://papermill.readthedocs.io/en/latest/")

    kernel: str | None = Field(
        default=None,
        description="Name of the Jupyter kernel; the notebook's own if empty.",
        examples=["python3"],
    )
    hide_input: bool = Field(
        default=False, title="Hide code", description="Leave the code out of the HTML report."
    )
    cell_timeout: int | None = Field(
        default=None, gt=0, description="Seconds that one cell may take; no limit if empty."
    )
    time_limit: float | None = Field(
        default=None, gt=0, description="Seconds that a notebook may take; no limit if empty."
    )

    def command(
        self,
        notebook: Path,
        parameters: dict[str, Any],
        *,
        folder: Path,
        output: Path,
        html: Path | None,
    ) -> Command:
        """What would run for `notebook`: one program, and the spec it reads from `folder`.

        The program is `python -m flows._notebook.execute SPEC`: spec in; notebook, HTML, progress
        lines and result out, all as files, so that it can run in any place.
        """
        spec = {
            "notebook": str(notebook),
            "parameters": parameters,
            "kernel": self.kernel,
            "output": str(output),
            "html": str(html) if html else None,
            "hide_input": self.hide_input,
            "cell_timeout": self.cell_timeout,
        }
        return Command(
            argv=[sys.executable, "-m", "flows._notebook.execute", str(folder / SPEC)],
            environment=dict(self.environment),
            pass_environment=self.pass_environment,
            secrets=self.environment_secrets(),
            files={SPEC: json.dumps(spec, ensure_ascii=False, indent=2)},
        )
