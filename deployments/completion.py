"""`penstock completion`: a script for bash or zsh that completes commands and options by Tab."""

import argparse
from pathlib import Path

SHELLS = ("bash", "zsh")
EXAMPLES = (
    "completion bash > ~/.local/share/bash-completion/completions/penstock",
    'completion zsh > "${fpath[1]}/_penstock"',
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")


def main(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(_whole_tree(), shell=options.shell))
    return 0


def _whole_tree() -> argparse.ArgumentParser:
    """Every command with its options in one parser: shtab wants them all at once."""
    import shtab

    from deployments.cli import COMMANDS, DESCRIPTION, parser_for

    top = argparse.ArgumentParser(prog="penstock", description=DESCRIPTION)
    levels = {"": top.add_subparsers()}
    for name, entry in COMMANDS.items():
        noun, _, verb = name.rpartition(" ")
        if noun not in levels:
            levels[noun] = levels[""].add_parser(noun, help=f"{noun} commands").add_subparsers()
        one = levels[noun].add_parser(
            verb, parents=[parser_for(name)], add_help=False, help=entry.line
        )
        for action in one._actions:  # argparse has no public list of them
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own mark
    return top
