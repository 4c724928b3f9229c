"""The `penstock` command: its help, its table, its exit codes, its completion."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from deployments.cli import COMMANDS, EXIT_CODES, Entry, main, overview, parser_for

ROOT = Path(__file__).parent.parent.parent


def penstock(*words):
    """The command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", "deployments", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_lists_every_command_with_its_line_and_the_exit_codes():
    done = penstock("--help")
    assert done.returncode == 0
    for name, entry in COMMANDS.items():
        assert any(
            line.split() == [*name.split(), *entry.line.split()]
            for line in done.stdout.splitlines()
        )
    assert EXIT_CODES in done.stdout


@pytest.mark.parametrize("words", [(), ("-h",)])
def test_without_a_command_there_is_help(words, capsys):
    assert main([*words]) == 0
    assert capsys.readouterr().out.strip() == overview()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_says_what_it_does_with_examples_and_exit_codes(name):
    said = parser_for(name).format_help()
    assert COMMANDS[name].line[1:] in said
    assert f"examples:\n  penstock {name}" in said
    assert said.endswith(f"{EXIT_CODES}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    for action in parser_for(name)._actions:
        assert action.help, f"{name}: {action.dest}"


def test_no_help_waits_for_prefect():
    code = (
        "import sys; from deployments.cli import COMMANDS, parser_for\n"
        "for name in COMMANDS: parser_for(name)\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"prefect", "httpx", "rich", "starlette"} & set(loaded)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "there is no command 'statsu'; did you mean `penstock status`?"),
        (["dwon", "--kill"], "there is no command 'dwon'; did you mean `penstock down`?"),
        (["runn", "cwl"], "did you mean `penstock run`?"),
        (["xyzzy"], "`penstock --help` lists them"),
    ],
)
def test_a_mistyped_command_is_answered_with_the_near_one(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_command_may_be_a_noun_and_a_verb(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "keys show", Entry("deployments.local.status", "tell of keys"))
    assert parser_for("keys show").prog == "penstock keys show"
    assert main(["keys", "shwo"]) == 2
    assert "did you mean `penstock keys show`?" in capsys.readouterr().err
    assert main(["keys"]) == 0
    with pytest.raises(SystemExit) as end:
        main(["keys", "show", "--nope"])
    assert end.value.code == 2
    assert "unrecognized arguments: --nope" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    command = subprocess.Popen(
        [sys.executable, "-m", "deployments", "completion", "zsh"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    command.stdout.close()
    assert command.wait(20) == 1
    assert command.stderr.read() == b""
    command.stderr.close()


SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "source {script}; PS1='rea''dy> '"),
    "zsh": (
        ["-f", "-i"],
        "autoload -U compinit; compinit -u -D; eval \"$(<{script})\"; PS1='rea''dy> '",
    ),
}


@pytest.fixture(params=SHELLS)
def shell(request, tmp_path):
    """A real interactive shell that has read the script."""
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param} (Debian: {request.param})")
    script = tmp_path / "script"
    script.write_text(penstock("completion", request.param).stdout)
    options, prepare = SHELLS[request.param]
    mine = pexpect.spawn(
        request.param,
        options,
        encoding="utf-8",
        timeout=20,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(tmp_path)},
    )
    mine.sendline(prepare.format(script=script))
    mine.expect_exact("ready> ")  # printed once the line editor has taken the terminal
    yield mine
    mine.close(force=True)


@pytest.mark.parametrize(
    ("typed", "rest"),
    [
        ("penstock sta", "tus"),
        ("penstock run --par", "ameters"),
        ("penstock completion z", "sh"),
        ("./bin/penstock stat", "us"),
    ],
)
def test_tab_completes_commands_options_and_choices(shell, typed, rest):
    shell.send(f"{typed}\t")
    shell.expect_exact(rest)  # what is echoed of `typed` does not hold it


def test_tab_offers_files_where_a_file_is_wanted(shell, tmp_path):
    (tmp_path / "blocks.toml").touch()
    shell.send("penstock seed --file blo\t")
    shell.expect_exact("penstock seed --file blocks.toml")
