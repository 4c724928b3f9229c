"""How CWL workflows are run."""

from collections.abc import Mapping
from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl

from blocks._command import Command, EnvironmentFields


class CwlConfig(EnvironmentFields, Block):
    """How CWL workflows are run.

    Example:
        ```python
        from blocks import CwlConfig

        config = CwlConfig.load("BLOCK_NAME")
        CwlConfig(on_error=config.on_error, parallel=4).save("four-jobs")
        ```
    """

    _block_type_name = "CWL Config"
    _block_type_slug = "cwl-config"
    _description = "How CWL workflows are run."
    _documentation_url = HttpUrl("https://www.commonwl.org/v1.2/")

    parallel: int | None = Field(
        default=None,
        ge=1,
        title="Parallel jobs",
        description="How many jobs run at a time; as many as the machine has cores if empty.",
    )
    on_error: Literal["stop", "continue"] = Field(
        default="stop",
        description="After a failed job: stop, or continue with what does not need it.",
    )

    def command(self, argv: list[str], environment: Mapping[str, str]) -> Command:
        """What would run for one job whose tool came to `argv` and `environment`.

        CWL gives a tool only HOME, TMPDIR and what its EnvVarRequirement names (CWL 1.2, Runtime
        environment); the block's own variables come on top, the tool's win.
        """
        return Command(
            argv=argv,
            environment={**self.environment, **environment},
            pass_environment=self.pass_environment,
            secrets=self.environment_secrets(),
        )
