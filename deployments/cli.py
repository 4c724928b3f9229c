"""The `penstock` command: one table from words to modules, imported only when used.

penstock run demo ──► COMMANDS["run"] ──► deployments.local.run: arguments(), main() ──► exit code
"""

import argparse
import errno
import functools
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from typing import NamedTuple, Protocol, cast

from blocks._home import home
from blocks.errors import ConfigError, PenstockError

DESCRIPTION = "Spark, notebooks and CWL workflows as Prefect tasks, with signed reports."
EXIT_CODES = "exit codes: 0 done, 1 it did not succeed, 2 wrong usage or settings, 130 Ctrl-C"

# What the system says where nothing can be written.
_NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class Entry(NamedTuple):
    """One row of the table."""

    module: str
    line: str  # what it does, as the overview has it
    here: bool = False  # whether the server it asks is the one that this checkout's services use


class Command(Protocol):
    """What a command's module has. It imports Prefect only inside main()."""

    @property
    def EXAMPLES(self) -> tuple[str, ...]: ...
    def arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def main(self, options: argparse.Namespace) -> int: ...


# heading → "verb" or "noun verb" → where it lives, what it does
GROUPS = {
    "runs": {
        "run": Entry("deployments.local.run", "run a deployment, follow it, check every report"),
        "stop": Entry("flows._cli.stop", "end a run, also one whose process is gone", here=True),
        "sweep": Entry("flows._cli.sweep", "end what lost runs of this machine left", here=True),
    },
    "reports of this machine": {
        "reports list": Entry("flows._cli.reports.list", "what was told to whom, and what waits"),
        "reports show": Entry("flows._cli.reports.show", "one report, and what became of it"),
        "reports replay": Entry("flows._cli.reports.replay", "send reports once more"),
        "reports dead": Entry("flows._cli.reports.dead", "what was refused, or not taken in time"),
    },
    "this checkout's installation": {
        "up": Entry("deployments.local.up", "start server, worker, listener and relay"),
        "status": Entry("deployments.local.status", "tell what runs, since when, and where"),
        "down": Entry("deployments.local.down", "stop exactly what `up` or `run` started"),
        "doctor": Entry("deployments.doctor.cli", "look for what is wrong, and say what mends it"),
    },
    "any Prefect server": {
        "seed": Entry("deployments.seed", "register block types and save sample blocks"),
        "relay": Entry("flows._cli.relay", "tell what no hook sees, until it is ended"),
        "listen": Entry("deployments.listener.cli", "receive reports and check their signatures"),
    },
    "keys": {
        "keys jwks": Entry("blocks._cli.keys", "print the public parts of keys as a JWKS"),
    },
    "stand-ins for outside systems": {
        "fake slack": Entry("deployments.fakes.slack", "take notes as Slack does, and show them"),
    },
    "this command": {
        "completion": Entry("deployments.completion", "print a script that completes it by Tab"),
    },
}
COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


def command(name: str) -> Command:
    """The module behind a command of the table."""
    return cast(Command, import_module(COMMANDS[name].module))


def parser_for(name: str) -> argparse.ArgumentParser:
    """The parser of one command; no other command's module is imported."""
    line, module = COMMANDS[name].line, command(name)
    examples = "".join(f"\n  penstock {example}" for example in module.EXAMPLES)
    parser = argparse.ArgumentParser(
        prog=f"penstock {name}",
        description=f"{line[0].upper()}{line[1:]}.",
        epilog=f"examples:{examples}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(parser)
    return parser


def overview(noun: str = "") -> str:
    """All commands, or those of one noun, under their headings."""
    width = max(map(len, COMMANDS))
    lines = ["usage: penstock COMMAND …", "", DESCRIPTION]
    for heading, group in GROUPS.items():
        shown = {n: entry for n, entry in group.items() if not noun or n.startswith(f"{noun} ")}
        if shown:
            lines += ["", f"{heading}:"]
            lines += [f"  {name:<{width}}  {entry.line}" for name, entry in shown.items()]
    return "\n".join([*lines, "", "`penstock COMMAND --help` has options and examples", EXIT_CODES])


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    typed = " ".join(takewhile(lambda word: not word.startswith("-"), words[:2]))
    first = typed.partition(" ")[0]
    for name in (typed, first):
        if name in COMMANDS:
            options = parser_for(name).parse_args(words[name.count(" ") + 1 :])
            return _guarded(functools.partial(_run, name), options)
    if not typed or any(name.startswith(f"{typed} ") for name in COMMANDS):
        print(overview(typed))
        return 0 if set(words) <= {typed, "-h", "--help"} else 2
    near = get_close_matches(typed, COMMANDS, n=1) or get_close_matches(first, COMMANDS, n=1)
    hint = f"did you mean `penstock {near[0]}`?" if near else "`penstock --help` lists them"
    print(f"penstock: there is no command {typed!r}; {hint}", file=sys.stderr)
    return 2


def _run(name: str, options: argparse.Namespace) -> int:
    if COMMANDS[name].here:
        from deployments.local.service import adopt_installation

        adopt_installation()
    return command(name).main(options)


def _guarded(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """The exit code; what goes wrong in the world outside becomes one clear message."""
    try:
        code = run(options)
        sys.stdout.flush()  # here, where a full disk and a reader that went away are met
        return code
    except BrokenPipeError:
        _write_no_more()  # who read our output has gone (`| head`)
        return 1
    except (Exception, KeyboardInterrupt) as error:
        code, said = _explained(error)
        print(f"penstock: {said}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _write_no_more()
        return code


def _write_no_more() -> None:
    """Nothing at exit either: Python would complain, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explained(error: BaseException) -> tuple[int, str]:
    """The exit code and the message for an error; one of our own making is raised again."""
    from httpx import HTTPError, HTTPStatusError

    match error:
        case ConfigError():
            return 2, str(error)
        case PenstockError():
            return 1, str(error)
        case KeyboardInterrupt():
            return 130, "interrupted"
        case OSError() if error.errno in _NO_PLACE:
            # A full disk gives no name when it is met in the middle of a file.
            where = error.filename or f"a file, most likely in {home()}"
            fix = "make room there or allow it, or set PENSTOCK_HOME to another folder"
            return 1, f"{where}: {error.strerror}; {fix}"
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return 1, f"{where}{error.strerror or error}"
        case HTTPError():
            # Never its text, which holds the address and what may stand in it.
            status = f" {error.response.status_code}" if isinstance(error, HTTPStatusError) else ""
            what = f"{type(error).__name__}{status}"
            return 1, f"the Prefect server failed to answer ({what}): see `penstock doctor`"
    raise error
