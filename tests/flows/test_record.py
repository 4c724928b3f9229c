"""What was started is on disk: found by its key, by any process, whatever the key looks like."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import ConfigError
from flows._run import record as records
from flows._run.job import Outcome, Record
from flows._run.keys import current_key, keyed, make_key

ROOT = "0b6f"
KEY = make_key(ROOT, "submit_spark", 0)
HOSTILE = [
    "",
    "/",
    "//",
    ".",
    "..",
    "../../../etc/passwd",
    f"{ROOT}/../../up",
    f"{ROOT}/..",
    f"{ROOT}/a/b",
    f"{ROOT}/a-b",
    f"{ROOT}/a b",
    f"{ROOT}/a\nb",
    f"{ROOT}/a\0b",
    f"{ROOT}/-rf",
    f"{ROOT}/~",
    f"{ROOT}/$(reboot)",
    f"{ROOT}/käse ✈",
    f"{ROOT}/käse 🚀",
    f"{ROOT}/" + "x" * 5000,
    f"{ROOT}/" + "x" * 5001,
    f"{ROOT}/" + "ä" * 300,
]


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    return tmp_path


def written(generation: int = 1, key: str = KEY, **more: Any) -> Record:
    folder = records.job_folder(ROOT, key, generation)
    record = Record("process", ROOT, key, generation, "host", str(folder), "spark-submit", **more)
    return records.write(record)


def test_a_record_is_read_as_it_was_written():
    outcome = vars(Outcome(code=None, signal="SIGKILL", max_rss=7, cpu=0.5, seconds=2.0))
    record = written(pid=12, start=34, boot="b", shim_pid=56, shim_start=78, outcome=outcome)
    assert records.latest(ROOT, KEY) == record


def test_a_record_is_private_json_in_the_folder_of_its_job(mine):
    path = Path(written(pid=12).folder) / "record.json"
    assert path.parent.parent == mine / "runs" / ROOT
    assert json.loads(path.read_text())["pid"] == 12
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_was_never_started_has_no_record():
    assert records.latest(ROOT, KEY) is None
    assert list(records.of_run(ROOT)) == []
    written()
    assert records.latest(ROOT, make_key(ROOT, "submit_spark", 1)) is None
    assert records.latest("another", KEY) is None


def test_the_latest_record_is_that_of_the_newest_generation():
    for generation in range(1, 13):
        newest = written(generation, pid=generation)
    assert records.latest(ROOT, KEY) == newest
    assert newest.generation == 12


def test_each_generation_has_a_mark_of_its_own():
    assert [written(n).mark for n in (1, 2)] == [f"{KEY}#1", f"{KEY}#2"]


def test_what_is_added_belongs_to_one_record_only():
    first, second = written(1), written(2)
    changed = records.gone(second, {"code": 9})
    assert records.latest(ROOT, KEY) == changed
    assert changed.outcome == {"code": 9}
    assert set(map(repr, records.of_run(ROOT))) == {repr(first), repr(changed)}


def test_a_run_has_the_records_of_all_its_jobs_and_generations_and_no_others(mine):
    ours = [written(1), written(2), written(1, make_key(ROOT, "count", "say[0]"))]
    (mine / "runs" / ROOT / "job-scratch").mkdir()
    elsewhere = records.job_folder("another", KEY, 1)
    records.write(Record("process", "another", KEY, 1, "host", str(elsewhere), "x"))
    assert {record.mark for record in records.of_run(ROOT)} == {record.mark for record in ours}
    assert len(list(records.of_run(ROOT))) == 3


def test_an_outcome_is_judged_only_once():
    written()
    records.judge(ROOT, [KEY], "failed")
    records.judge(ROOT, [KEY], "done")
    assert (latest := records.latest(ROOT, KEY))
    assert latest.judged == "failed"


def test_judging_is_about_the_newest_generation():
    first, second = written(1), written(2)
    records.judge(ROOT, [KEY], "done")
    judged = {record.generation: record.judged for record in records.of_run(ROOT)}
    assert judged == {first.generation: None, second.generation: "done"}


def test_judging_what_was_never_started_writes_nothing():
    records.judge(ROOT, [KEY], "failed")
    assert list(records.of_run(ROOT)) == []


def test_a_job_that_is_gone_keeps_the_time_it_was_first_seen_gone():
    record = records.gone(written(), None, "2026-01-01T00:00:00+00:00")
    again = records.gone(record, {"code": 0})
    assert again.gone_at == "2026-01-01T00:00:00+00:00"
    assert again.outcome == {"code": 0}


def test_a_job_that_is_gone_says_since_when_and_how_it_ended():
    gone = records.gone(written(), {"code": 3})
    assert records.latest(ROOT, KEY) == gone
    assert gone.gone_at is not None
    assert gone.gone_at.endswith("+00:00")
    assert gone.outcome == {"code": 3}


@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: repr(key[:20]))
def test_a_hostile_key_gets_a_short_folder_directly_below_its_run(key, mine):
    folder = records.job_folder(ROOT, key, 1)
    assert folder.resolve().parent == mine / "runs" / ROOT
    assert len(folder.name) < 90
    assert folder.name.isascii()
    record = written(key=key, pid=5)
    assert records.latest(ROOT, key) == record


def test_no_two_keys_or_generations_share_a_folder():
    folders = [records.job_folder(ROOT, key, n) for key in HOSTILE for n in (1, 2, 11)]
    assert len(set(folders)) == 3 * len(HOSTILE)


def test_a_folder_is_readable_and_the_same_in_every_process():
    folder = records.job_folder("r", "r/cwl_step/say[2]", 3)
    assert folder.name == "cwl_step-say-2-16125546.3"


def test_a_key_is_run_task_and_index_and_known_inside_only():
    assert KEY == "0b6f/submit_spark/0"
    with keyed(KEY):
        with keyed("inner"):
            assert current_key() == "inner"
        assert current_key() == KEY
    with pytest.raises(ConfigError, match="job_task"):
        current_key()
