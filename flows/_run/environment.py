"""What a program's environment holds: a short list, and what the block names."""

import os

from blocks._command import Command

# Harmless, and without them many programs do not work. Nothing of Prefect, no cloud credentials.
ALLOWED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)


def environment(command: Command) -> dict[str, str]:
    """The whole environment of the program that `command` describes."""
    own = os.environ
    return {
        **{name: own[name] for name in ALLOWED if name in own},
        **{name: value for name, value in own.items() if name.startswith("LC_")},
        **named(command),
    }


def named(command: Command) -> dict[str, str]:
    """Only what the block names: passed on, set in the clear, and secret."""
    own = os.environ
    return {
        **{name: own[name] for name in command.pass_environment if name in own},
        **command.environment,
        **command.secrets,
    }
