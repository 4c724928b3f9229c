"""What this installation keeps is private, and never half written."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks._home import home, output_folder, private, run_folder, write_private


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    """Let new files be as open as they ask to be, so that a mode is our doing."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "mine"))
    return tmp_path / "mine"


def test_home_is_where_the_variable_says_and_private(mine):
    assert home() == mine
    assert mode(mine) == 0o700


@pytest.mark.parametrize("said", [None, ""])
def test_home_is_a_folder_in_the_working_directory_when_nothing_is_said(
    said, tmp_path, monkeypatch
):
    monkeypatch.delenv("PENSTOCK_HOME", raising=False)
    if said is not None:
        monkeypatch.setenv("PENSTOCK_HOME", said)
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / ".penstock"
    assert mode(home()) == 0o700


def test_home_is_absolute_also_when_the_variable_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_HOME", "here/../there")
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / "there"


@pytest.mark.parametrize(("folder", "name"), [(run_folder, "runs"), (output_folder, "output")])
def test_each_run_has_a_private_folder_in_a_private_folder(folder, name, mine):
    made = folder("run-7")
    assert made == mine / name / "run-7"
    assert [mode(path) for path in (mine, mine / name, made)] == [0o700] * 3


def test_every_folder_that_is_made_is_private_also_those_above(tmp_path):
    deep = private(tmp_path / "a" / "b" / "c")
    assert [mode(path) for path in (deep, deep.parent, deep.parent.parent)] == [0o700] * 3


def test_a_folder_that_was_there_keeps_its_mode_and_its_files(tmp_path):
    old = tmp_path / "old"
    old.mkdir(mode=0o755)
    (old / "kept").write_text("x")
    assert private(old) == old
    assert mode(old) == 0o755
    assert (old / "kept").read_text() == "x"


def test_a_private_file_is_0600_and_holds_the_text(tmp_path):
    write_private(tmp_path / "file", "naïve ✈\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "naïve ✈\n"
    assert mode(tmp_path / "file") == 0o600


def test_a_file_that_others_could_read_is_private_once_it_is_written_anew(tmp_path):
    (tmp_path / "file").touch(mode=0o644)
    write_private(tmp_path / "file", "new")
    assert mode(tmp_path / "file") == 0o600


def test_a_draft_that_was_left_behind_gives_the_file_neither_its_mode_nor_its_text(tmp_path):
    (tmp_path / "file.new").touch(mode=0o644)
    (tmp_path / "file.new").write_text("a long text of another day")
    write_private(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert mode(tmp_path / "file") == 0o600


def test_a_file_is_written_by_rename_so_that_who_has_it_open_reads_the_old_text(tmp_path):
    path = tmp_path / "file"
    write_private(path, "old")
    with path.open() as reader:
        write_private(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writers_at_the_same_time_disturb_neither_each_other_nor_a_reader(tmp_path):
    path, texts = tmp_path / "file", ["a" * 50_000, "b" * 20_000]
    write_private(path, texts[0])
    wrong: list[object] = []
    start = threading.Barrier(3)

    def write(text: str) -> None:
        start.wait()
        try:
            for _ in range(300):
                write_private(path, text)
        except OSError as error:
            wrong.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    start.wait()
    while any(writer.is_alive() for writer in writers):
        if (seen := path.read_text()) not in texts:
            wrong.append(f"{len(seen)} characters")
    assert wrong == []
