"""The benchmarks of reports and kills: they start, and their figures have the right form."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks._lab import figure
from benchmarks._lane import TARGETS
from benchmarks.kill import rows, verdict

ROOT = Path(__file__).parent.parent
FORM = {"claim", "unit", "ours", "peer", "peer_name", "ratio", "goal", "met", "rounds"}


def run(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def played(target: str, **what) -> dict[str, Any]:
    clean = {
        "target": target, "hit": True, "expected": 20, "lost": [], "forged": 0, "failed": False,
        "left_alive": [], "terminal_missing": False, "progress_fell": False, "again": False,
        "lane": 0,
    }  # fmt: skip
    return {**clean, **what}


@pytest.mark.parametrize("name", ["reports", "kill", "chaos"])
def test_a_benchmark_says_what_it_measures(name):
    done = run(f"benchmarks.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


def test_a_figure_is_met_by_what_it_is_judged_by():
    one = figure("a", "s", [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], goal=1.5, judged="ratio")
    assert one.keys() >= FORM
    assert (one["ours"], one["ratio"], one["met"], one["spread"]) == (2, 2, False, "1.000-3.000")
    assert figure("a", "s", [1.0, 2.0], goal=1.5)["met"] is True
    assert figure("a", "posts/s", [900.0], goal=700, at_least=True)["met"] is True
    assert figure("a", "posts/s", [600.0], goal=700, at_least=True)["met"] is False
    assert figure("a", "s", [600.0])["met"] is None


def test_kills_are_counted_by_target_and_a_loss_misses_the_goal():
    found = [*(played(target) for target in TARGETS), played("engine", lost=["x/status"])]
    made = {row["claim"]: row for row in rows(found, [])}
    assert all(row.keys() >= FORM and row["goal"] == 0 for row in made.values())
    assert (made["kill_lost"]["ours"], made["kill_lost"]["met"]) == (1, False)
    assert made["kill_terminal_missing"]["met"] is True
    assert made["kill_lost"]["hits"] == {**dict.fromkeys(TARGETS, 1), "engine": 2}


def test_what_one_lane_refused_is_counted_once():
    found = [played("engine", forged=2), played("server", forged=2), played("server", lane=1)]
    assert {row["claim"]: row["ours"] for row in rows(found, [])}["kill_forged"] == 2


def test_the_benchmark_fails_when_it_sees_no_loss_without_the_outbox(capsys):
    found = [played(target) for target in TARGETS]
    assert verdict(found, [played("listener", lost=["x/status"])], len(found)) == 0
    assert verdict(found, [played("listener")], len(found)) == 1
    assert "losses are not seen" in capsys.readouterr().err


def test_the_benchmark_fails_when_progress_went_back(capsys):
    found = [*(played(target) for target in TARGETS), played("engine", progress_fell=True)]
    assert verdict(found, [played("listener", lost=["x/status"])], len(TARGETS)) == 1
    assert "progress went back in 1 of 7 rounds" in capsys.readouterr().err
    made = {row["claim"]: row for row in rows(found, [])}
    assert (made["kill_progress_fell"]["ours"], made["kill_progress_fell"]["met"]) == (1, False)


def test_the_benchmark_fails_when_a_target_was_hardly_hit(capsys):
    found = [played(target) for target in TARGETS[1:]]
    assert verdict(found, [played("listener", lost=["x/status"])], len(found)) == 1
    assert f"hit too seldom: {TARGETS[0]}" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.timeout(900)
def test_reports_are_measured(tmp_path):
    done = run("benchmarks.reports", "--quick", "--json", str(tmp_path / "a.json"), timeout=900)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "a.json").read_text())
    goals = {"hook_p50", "task_added", "flow_50ms", "flow_empty", "drain_rs256", "drain_eddsa"}
    assert {row["claim"] for row in made if row["goal"] is not None} == goals
    assert all(row.keys() >= FORM for row in made)
