"""Settings: every block Penstock has. The table here is the registry."""

from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

# `blocks` is a name other people use too: ours and theirs may stand side by side on sys.path.
__path__ = extend_path(__path__, __name__)

if TYPE_CHECKING:
    from blocks.cwl import CwlConfig
    from blocks.endpoint import ReportEndpoint
    from blocks.mail import MailChannel
    from blocks.notebook import NotebookConfig
    from blocks.signing import SigningKey, VerifyKey
    from blocks.slack import SlackChannel
    from blocks.spark import SparkConfig

__all__ = [
    "CwlConfig",
    "MailChannel",
    "NotebookConfig",
    "ReportEndpoint",
    "SigningKey",
    "SlackChannel",
    "SparkConfig",
    "VerifyKey",
]

_WHERE = {
    "CwlConfig": "blocks.cwl",
    "MailChannel": "blocks.mail",
    "NotebookConfig": "blocks.notebook",
    "ReportEndpoint": "blocks.endpoint",
    "SigningKey": "blocks.signing",
    "SlackChannel": "blocks.slack",
    "SparkConfig": "blocks.spark",
    "VerifyKey": "blocks.signing",
}


def __getattr__(name: str) -> Any:
    # Lazy (PEP 562): who needs blocks.errors alone must not wait seconds for Prefect.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    # `prefect block register -m blocks` looks here.
    return sorted({*globals(), *__all__})
