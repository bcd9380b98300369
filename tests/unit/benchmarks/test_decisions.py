"""How decisions are measured: the rivals' rules, the promises, the page, and a quick run of it all."""

from __future__ import annotations

import re
from concurrent.futures import Executor, Future
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.decisions import __main__ as command
from benchmarks.decisions import (
    adaptive,
    alarms,
    broken,
    cost,
    delays,
    examples,
    labels,
    labels_recorded,
    lowtraffic,
    page,
    rivals,
    sidebyside,
    targets,
)
from benchmarks.decisions.chunks import Work, generator, wilson
from benchmarks.decisions.labels_recorded import Recorded
from benchmarks.decisions.machine import Machine
from benchmarks.decisions.rivals import Stream
from benchmarks.decisions.tables import TABLES
from hotswap.core.windows import ARMS


class Here(Executor):
    """Does the work at once, in this process."""

    def submit(self, function: Any, /, *args: Any, **named: Any) -> Future[Any]:
        """Done before it returns."""
        future: Future[Any] = Future()
        future.set_result(function(*args, **named))
        return future


@pytest.fixture
def work() -> Work:
    """Little of it, without other processes."""
    return Work(True, cast(Any, Here()), Progress(console=Console(quiet=True)))


def stream(ours: int, errors: list[int], theirs: list[int]) -> Stream:
    """One run, ``ours`` of 100 requests in each step on the candidate."""
    steps = len(errors)
    return Stream(
        np.full(steps, ours / 100),
        np.full((1, steps), ours),
        np.array([errors]),
        np.full((1, steps), 100 - ours),
        np.array([theirs]),
        np.array([theirs]),
    )


def test_a_threshold_needs_more_failed_windows_than_its_limit() -> None:
    """With windows of one minute the fourth failed one ends it, and only the fourth."""
    bad = [10] + [0] * 9  # a minute with 10 errors of 500 requests: 2 %
    good = [0] * 10
    seen = stream(50, bad * 3 + good + bad + good, [0] * 60)
    assert rivals.threshold(seen, 0.01, 3, minutes=1).tolist() == [50]
    assert rivals.threshold(seen, 0.01, 4, minutes=1).tolist() == [-1]
    assert rivals.threshold(seen, 0.02, 0, minutes=1).tolist() == [-1], "at the level is not above"


def test_a_peeked_test_counts_everything_so_far() -> None:
    """No difference never fires, a great one at the first look."""
    assert rivals.peeked(stream(50, [1] * 20, [1] * 20)).tolist() == [-1]
    assert rivals.peeked(stream(50, [9] * 20, [1] * 20)).tolist() == [10]


def test_an_asymptotic_sequence_needs_spread_in_both_arms() -> None:
    """Without an error on one of the arms it says nothing; with a great difference it fires."""
    assert rivals.asymptotic(stream(50, [5] * 50, [0] * 50)).tolist() == [-1]
    assert rivals.asymptotic(stream(50, [10] * 50, [1] * 50))[0] > 0


def test_the_judge_wants_a_shift_that_is_large_and_sure() -> None:
    """Equal series pass, shifted ones fail, and too few minutes say nothing."""
    rng = generator(2_000, 1)
    base = rng.normal(1.0, 0.1, 60)
    assert not rivals.judged(base, base)
    assert not rivals.judged(base + 0.01, rng.normal(1.0, 0.1, 60))
    assert rivals.judged(base + 0.5, rng.normal(1.0, 0.1, 60))
    assert not rivals.judged(base[:2] + 0.5, base[2:4])


def test_a_stage_of_another_share_is_never_pooled() -> None:
    """Errors that rise along a ramp on both arms fool the pooled test, and not ours."""
    _, rho, p0, p1 = sidebyside.scenarios()["A/A, errors rise 0.5 → 1 → 2 % along the ramp"]
    seen = rivals.draw(generator(2_000, 2), rho, p0, p1, 40)
    assert (rivals.peeked(seen) > 0).all()
    assert (rivals.ours(seen) > 0).mean() < 0.2


def test_every_stream_holds_together() -> None:
    """Arms add up to the step's requests, and errors are at most the requests."""
    for _, rho, p0, p1 in sidebyside.scenarios().values():
        seen = rivals.draw(generator(2_000, 3), rho, p0, p1, 2)
        assert (seen.ours + seen.theirs == rivals.STEP).all()
        assert (seen.our_errors <= seen.ours).all()
        assert (seen.their_errors <= seen.theirs).all()
        assert (seen.twin_errors <= seen.their_errors).all()


def test_the_same_seed_gives_the_same_figures() -> None:
    """A cell of a table does not depend on what was measured before it."""
    one = delays.errors_row(0.1, 0.01, 0.02, 50, "alone")
    assert one == delays.errors_row(0.1, 0.01, 0.02, 50, "alone")
    assert one["ratio"] > 1.0
    assert one["missed"] == 0


def test_a_lower_share_of_the_level_takes_longer() -> None:
    """In the default set a metric needs more evidence than alone."""
    assert delays.in_set("error_rate") > delays.ALONE
    assert delays.in_set("latency") > delays.in_set("error_rate")


def test_a_broken_candidate_trips_the_breaker_after_five() -> None:
    """One worker needs five failures in a row where stable has none."""
    assert broken.breaker_requests(generator(2_000, 4), 0.5, 1.0, 1) == 5


def test_the_machine_takes_a_broken_candidate_back() -> None:
    """The real machine on simulated traffic ends where it should, in both directions."""
    body: dict[str, Any] = {"strategy": "canary", "steps": [{"weight": 50}, {"hold_seconds": 60}]}
    bad = Machine(body, generator(2_000, 5), p0=0.001, p1=0.9, rate=100.0, seconds=0.5)
    assert bad.run(until=60).state == "rolled_back"
    assert 0 < bad.candidate_requests < 500
    after = {"bake_seconds": 5, "watch_seconds": 0}
    good = Machine(body | after, generator(2_000, 6), p0=0.01, p1=0.001, rate=400.0, seconds=1.0)
    assert good.run(until=3_600).state == "healthy"


def test_the_machine_takes_one_latency_in_fifty_milliseconds() -> None:
    """However many requests there are; compared arms share their turns."""
    body = {"strategy": "canary", "steps": [{"weight": 10}, {"hold_seconds": 60}]}
    machine = Machine(body, generator(2_000, 7), p0=0.0, p1=0.0, rate=5_000.0, seconds=1.0)
    machine.run(until=3.0)
    stage = machine.rollout.evidence.stages[0]
    taken = {name: sum(getattr(stage, name).latency.values()) for name in ARMS}
    assert taken["twin"] + taken["candidate"] == 20 * (stage.baseline.requests // 3_000)


def test_an_interval_holds_its_share() -> None:
    """Wilson's interval is inside 0 and 1 and holds what was seen."""
    for hits in (0, 3, 50):
        low, high = wilson(hits, 50)
        assert 0.0 <= low <= hits / 50 <= high + 1e-12
        assert high <= 1.0


def test_quick_groups_have_tables_and_verdicts(work: Work) -> None:
    """Everything that is quick enough is measured, shown as tables, and judged."""
    groups: dict[str, Any] = {
        "broken": [broken.row(0.5, 1.0, 40)],
        "lowtraffic": [lowtraffic.cell(20, 0.0, 50), lowtraffic.cell(20, 0.05, 50)],
        "bandit": [
            {
                "p0": 0.02, "p1": 0.02, "runs": 1, "requests": 1, "rolled_back": 0.0,
                "interval": (0.0, 0.5), "promoted": 0.0, "peeked": 1.0,
                "exposure": adaptive.run(generator(2_000, 8), 0.02, 0.02)[3],
            }
        ],
        "alarms": {
            "lost": [alarms.lost_row(0.01, 0.2, 5, 200_000)],
            "change": [alarms.change_row(0.01, 0.02, 10, 50_000, 1)],
        },
        "cost": {"thousand": cost.thousand(work, 20), "week": [cost.week(3000.0, 0.05)]},
        "examples": {
            "paths": [examples.follow(4, "errors 1 → 20 %")],
            "runs": 1, "equal_back": 0, "worse_back": 1,
        },
    }  # fmt: skip
    for _, (group, table) in list(TABLES.items())[1:]:
        if group in groups:
            header, *rows = table(groups)
            assert rows
            assert all(len(row) == len(header) for row in rows)
    judged = targets.verdicts(groups)
    assert {v.kept for v in judged} <= {True, False}
    assert any("seven days" in v.what for v in judged)
    assert groups["cost"]["week"][0]["state"] == "healthy"


def _versions() -> Recorded:
    """Two versions of a rare class, one of them with noise."""
    rng = np.random.default_rng(1)
    truth = (rng.random(2_000) < 0.2).astype(np.int64)
    score = 2.5 * truth - 1.2 + rng.standard_normal(2_000)
    chances = [1 / (1 + np.exp(-(score + noise * rng.standard_normal(2_000)))) for noise in (0, 1)]
    stable, candidate = (np.stack([1 - p, p], axis=1) for p in chances)
    return Recorded("one → the other", truth, stable, candidate)


def test_labels_are_counted_on_recorded_predictions(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every method finds the worse version, paired in fewer labels, and equal ones are seldom."""
    monkeypatch.setattr(labels, "HORIZON", 3_000)
    monkeypatch.setattr(labels, "RHOS", (0.5,))
    rows = labels.rows_of(work, 0, _versions())
    assert len(rows) == 5 + 2
    assert {row["found"] for row in rows} == {1.0}
    assert all(row["false"] <= 0.15 for row in rows if not row["unpaired"])
    means = {row["method"]: row["mean"] for row in rows}
    assert means["accuracy, paired (F5)"] < means["accuracy, unpaired, 50 % (F2)"]
    told = [row | {"rows": 2_000, "disagreement": 0.1} for row in rows]
    header, *lines = TABLES["recorded"][1]({"labels": told})
    assert {len(line) for line in lines} == {len(header)}


def test_predictions_are_of_rows_held_out() -> None:
    """A model that only remembers what it has seen is never right."""
    values = np.arange(40)[:, None]
    remembers = KNeighborsClassifier(1)
    seen = labels_recorded.held_out("x", values, np.arange(40) % 2, remembers, remembers)
    assert seen.stable.shape == seen.candidate.shape == (40, 2)
    assert seen.wrong("stable").mean() > 0.6


def test_a_part_of_the_page_tells_its_own_time() -> None:
    """Groups measured apart change nothing else, and say when and how they were taken."""
    row = {
        "what": "a → b", "method": "accuracy, paired (F5)", "unpaired": False, "mean": 10.0,
        "median": 10.0, "p90": 10.0, "found": 1.0, "before": 0.9, "after": 0.8, "false": 0.0,
        "disagreement": 0.1, "rows": 9,
    }  # fmt: skip
    facts = {"commit": "abc", "cores": 2, "cpu": "x", "python": "3"}
    result = {
        "groups": {"labels": [row]}, "machine": facts, "started": "today",
        "times": {"labels": {"took_seconds": 60, "commit": "abc"}},
    }  # fmt: skip
    text = page.PAGE.read_text()
    new = page.written(text, result)
    assert "| a → b |" in new
    assert "by `make bench-decisions ARGS='--only labels'` in 1.0 minutes" in new
    at = new.index("<!-- begin: recorded -->")
    assert new[:at] == text[:at]


def test_a_promise_that_was_broken_is_said() -> None:
    """A verdict follows the figure."""
    row = {
        "errors": 0.01, "runs": 1_000, "rate": 0.09, "ratio_rate": 0.0, "ratio_alarms": 0,
    }  # fmt: skip
    first, second = targets.verdicts({"falsealarms": {"aa": [row], "exact": []}})
    assert (first.kept, second.kept) == (False, True)
    assert first.seen == "9.00 %"


def test_the_page_has_a_place_for_every_table() -> None:
    """Each table has its markers, and what is between them alone is replaced."""
    text = page.PAGE.read_text()
    for name in TABLES:
        assert re.search(f"<!-- begin: {name} -->.*<!-- end: {name} -->", text, re.DOTALL), name
    new = page.replaced("a <!-- begin: x -->old<!-- end: x --> b", "x", "new")
    assert new == "a <!-- begin: x -->\n\nnew\n\n<!-- end: x --> b"
    with pytest.raises(page.NoMarker, match="add them where y belongs"):
        page.replaced(new, "y", "z")


def test_an_unknown_group_is_refused() -> None:
    """The command says which groups there are."""
    with pytest.raises(SystemExit, match="there is no group 'nothing'"):
        command.main(["--only", "nothing"])
    with pytest.raises(SystemExit, match="name it with --into"):
        command.main(["--page"])
