"""`penstock reports`: what was told, what waits, what was given up, and how to send it again."""

from pathlib import Path

import pytest

from blocks._changes import Change
from blocks._messages import Names, messages
from deployments.cli import main
from flows._reports.ledger import Ledger
from flows._reports.outbox import API
from flows._reports.rows import Made

RUN, OTHER = "0a6f0000-0000-0000-0000-000000000001", "0a6f0000-0000-0000-0000-000000000002"
HERE, THERE = "report-endpoint/here", "slack-channel/there"
AT = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """One run told here and refused there, another that waits here."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path))
    place = tmp_path / "reports" / "0123"
    place.mkdir(parents=True)
    (place / API).write_text("http://127.0.0.1:9/api")
    ledger = Ledger(place)
    for n, run in enumerate((RUN, OTHER)):
        failed = Change(run, f"state-{n}", "FAILED", "Failed", AT, message="no fuel", progress=40)
        told = messages(failed, Names("flights", run, root=run))
        endpoints = (HERE, THERE) if run == RUN else (HERE,)
        wanted = [(told[0].id, endpoint) for endpoint in endpoints]
        ledger.resolve([Made(n, run, told, wanted, ends=True)])
    by = {(one.root, one.endpoint): one for one in ledger.find()}
    ledger.settle(by[RUN, HERE], "told")
    ledger.settle(by[RUN, THERE], "dead", "it was answered with 410")
    return ledger


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["reports", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_list_has_a_line_for_each_report_and_endpoint(ledger, capsys):
    *lines, count = said(capsys, "list")
    assert count == "3 report(s)"
    assert [line.split()[2:5] for line in lines] == [
        ["told", HERE, "state-0/progress"],
        ["dead", THERE, "state-0/progress"],
        ["waiting", HERE, "state-1/progress"],
    ]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "waiting"], ["state-1"]),
        (["--run", RUN], ["state-0", "state-0"]),
        (["--endpoint", "there"], ["state-0"]),
        (["--endpoint", HERE], ["state-0", "state-1"]),
        (["--since", "2026-01-01"], ["state-0", "state-0", "state-1"]),
        (["--since", "2999-01-01"], []),
        (["--run", RUN, "--endpoint", "here"], ["state-0"]),
    ],
)
def test_list_shows_what_the_options_choose(options, ids, ledger, capsys):
    *lines, _ = said(capsys, "list", *options)
    assert [line.split()[4].partition("/")[0] for line in lines] == ids


def test_dead_says_why_it_was_given_up(ledger, capsys):
    [line, count] = said(capsys, "dead")
    assert "it was answered with 410" in line
    assert count == "1 report(s)"


def test_show_has_the_fields_and_what_became_of_each_delivery(ledger, capsys):
    text = "\n".join(said(capsys, "show", "state-0/progress"))
    assert '"error": "no fuel"' in text
    assert f"{HERE}: told at" in text
    assert f"{THERE}: dead at" in text


def test_show_of_what_is_not_there_says_where_to_look(ledger, capsys):
    assert main(["reports", "show", "nothing/status"]) == 2
    assert "`penstock reports list` has them" in capsys.readouterr().err


def test_a_dry_replay_tells_and_changes_nothing(ledger, capsys):
    said(capsys, "replay", "--dead", "--dry-run")
    assert [one.status for one in ledger.find("WHERE endpoint = ?", [THERE])] == ["dead"]


def test_replay_without_a_choice_is_refused(ledger, capsys):
    assert main(["reports", "replay"]) == 2
    assert "say which" in capsys.readouterr().err


def test_a_time_that_is_none_is_refused_with_an_example(ledger, capsys):
    assert main(["reports", "list", "--since", "yesterday"]) == 2
    assert "2026-11-21T09:30" in capsys.readouterr().err


def test_what_is_replayed_waits_again_with_its_id_and_a_new_patience(ledger):
    [dead] = ledger.find("WHERE status = 'dead'")
    ledger.replay([dead])
    [again] = ledger.find("WHERE endpoint = ?", [THERE])
    assert (again.message, again.status, again.attempts) == (dead.message, "waiting", 0)
    assert again.made >= dead.made
