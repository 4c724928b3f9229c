"""What a block says would run, and the environment that every kind of job may name."""

from dataclasses import dataclass, field
from typing import Any

from prefect.blocks.fields import SecretDict
from pydantic import Field, field_validator

from blocks._form import Form
from blocks.errors import ConfigError

STARS = "********"  # what is shown of a secret, however long it is


@dataclass(frozen=True)
class Command:
    """One program run, exactly: plain data, no process started, no file written.

    `argv` is passed without a shell. `environment` is set in the clear, `secrets` too but masked in
    logs and never shown; `pass_environment` are names taken from the engine's own environment.
    `files` maps names in the run's private folder to texts, written 0600 before the start;
    `masked` are values in them that must not be seen in a log, and `shown` is what may be seen of
    those files that hold such values: a file's own spelling could hide a value from a search.
    """

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    pass_environment: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    files: dict[str, str] = field(default_factory=dict, repr=False)
    masked: list[str] = field(default_factory=list, repr=False)
    shown: dict[str, str] = field(default_factory=dict)


class EnvironmentFields(Form):
    """Fields of every block that starts programs: what their environment holds.

    Programs get a short list of harmless variables and what is named here; nothing else.
    """

    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Variables set for the program, readable by anyone who may see the block.",
        examples=[{"LOG_LEVEL": "INFO"}],
    )
    secret_environment: SecretDict | None = Field(
        default=None,
        description="Variables set for the program whose values are secret and masked in logs.",
        examples=[{"API_TOKEN": "its value"}],
    )
    pass_environment: list[str] = Field(
        default_factory=list,
        title="Passed environment",
        description="Names of the worker's own variables that the program may see.",
        examples=[["AWS_PROFILE"]],
    )

    @field_validator("pass_environment")
    @classmethod
    def _never_prefects(cls, names: list[str]) -> list[str]:
        for name in names:
            if name.upper().startswith("PREFECT_"):
                raise ConfigError(
                    f"pass_environment names {name}: jobs are other people's code and get no "
                    "access to the Prefect API; take it out"
                )
        return names

    def environment_secrets(self) -> dict[str, str]:
        """The secret variables, in the clear: only for a program's start and for masking."""
        secret: dict[str, Any] = (
            self.secret_environment.get_secret_value() if self.secret_environment else {}
        )
        return {name: str(value) for name, value in secret.items()}
