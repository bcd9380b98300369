"""The demo's account: what it counts, and what it calls wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hotswap.app import demo_account
from hotswap.app.demo_bench import DemoModel, DemoVersion
from hotswap.app.demo_server import Move
from hotswap.app.demo_traffic import Answer
from hotswap.app.demo_verdicts import Verdict


def version(name: str, expected: list[float]) -> DemoVersion:
    return DemoVersion(name, "ONNX", "", Path(), np.array(expected))


MODEL = DemoModel(
    "cancer",
    "classification",
    np.zeros((4, 2)),
    np.array([0, 1, 0, 1]),
    (version("v1", [0, 1, 1, 0]), version("v2", [0, 1, 0, 1])),
)
MOVE = Move("cancer", "switch", "v1", "v2", 10.0, 10.5, 80.0, 0.2)


def answer(sent: float, row: int, by: str, value: float, problem: str = "") -> Answer:
    return Answer("cancer", row, sent, 0.001, by, by, value, problem)


def test_windows_are_before_during_and_after() -> None:
    """Requests are put in the window in which they were sent."""
    answers = [
        answer(t, 0, v, 0) for t, v in ((9.0, "v1"), (10.1, "v1"), (10.2, "v2"), (11.0, "v2"))
    ]
    before, during, after = demo_account.windows(answers, [MOVE], "cancer")
    assert (before.requests, during.requests, after.requests) == (1, 2, 1)
    assert (before.versions, during.versions, after.versions) == (
        {"v1": 1},
        {"v1": 1, "v2": 1},
        {"v2": 1},
    )
    assert before.p50 == pytest.approx(1.0)


def test_a_model_that_was_not_moved_has_no_windows() -> None:
    """Nothing is said of a model without a switch."""
    assert demo_account.windows([answer(1, 0, "v1", 0)], [], "cancer") == []


def test_an_answer_by_the_old_version_after_the_switch_is_stale() -> None:
    """Only requests that began after the switch had returned are judged."""
    early, late, right = (
        answer(10.49, 0, "v1", 0),
        answer(10.51, 0, "v1", 0),
        answer(10.6, 0, "v2", 0),
    )
    assert demo_account.stale([early, late, right], [MOVE]) == [late]


def test_what_overlaps_the_next_switch_is_not_stale() -> None:
    """While the next one runs, either version is right."""
    back = Move("cancer", "rollback", "v2", "v1", 11.0, 11.1, 0.0, 0.2)
    assert (
        demo_account.stale([answer(11.05, 0, "v1", 0), answer(10.9999, 0, "v1", 0)], [MOVE, back])
        == []
    )
    assert len(demo_account.stale([answer(11.2, 0, "v2", 0)], [MOVE, back])) == 1


def test_an_answer_must_be_its_versions_own() -> None:
    """A value of another version, a body that names another, or an unknown one is mixed."""
    good = answer(1, 2, "v1", 1)
    value = answer(1, 2, "v2", 1)
    names = Answer("cancer", 0, 1, 0.1, "v1", "v2", 0)
    unknown = answer(1, 0, "v9", 0)
    failed = answer(1, 0, "", 0, problem="503")
    assert demo_account.mixed([good, value, names, unknown, failed], [MODEL]) == [
        value,
        names,
        unknown,
    ]


def test_regression_answers_may_differ_in_the_seventh_digit() -> None:
    """32-bit formats are held to the precision that they have."""
    model = DemoModel(
        "cancer", "regression", np.zeros((1, 1)), np.array([150.0]), (version("v1", [150.0]),)
    )
    assert demo_account.own(answer(1, 0, "v1", 150.0001), model)
    assert not demo_account.own(answer(1, 0, "v1", 150.01), model)


def test_scores_come_from_live_answers_and_labels() -> None:
    """Accuracy is over what was answered, by version; failures are not answers."""
    answers = [answer(1, row, "v1", v) for row, v in enumerate((0, 1, 1, 0))]
    answers += [answer(1, 0, "v2", 0), answer(1, 1, "v2", 1, problem="500: it failed")]
    first, second = demo_account.scores(answers, [MODEL])
    assert (first.score, first.answers, first.differing) == (0.5, 4, 0)
    assert (second.score, second.answers) == (1.0, 1)


def test_a_version_that_answered_nobody_is_scored_offline() -> None:
    """What nobody saw is told all the same: by what its artifact predicts for every row."""
    first, second = demo_account.scores([answer(1, 0, "v1", 0)], [MODEL])
    assert (first.score, first.answers) == (1.0, 1)
    assert (second.score, second.answers, second.rows) == (1.0, 0, 0)
    (first, second) = demo_account.scores([answer(1, 0, "v2", 0)], [MODEL])
    assert (first.score, first.answers) == (0.5, 0)


def test_each_row_counts_once_in_a_score() -> None:
    """A row that was asked for often weighs no more than another: versions are compared fairly."""
    answers = [answer(1, 0, "v1", 0)] * 9 + [answer(1, 2, "v1", 1)]
    score, _ = demo_account.scores(answers, [MODEL])
    assert (score.score, score.answers, score.rows) == (0.5, 10, 2)


def test_short_times_are_shown_in_a_unit_that_shows_them() -> None:
    """A flip of two microseconds is not 0.00 ms, and a warm version was not loaded in 0 ms."""
    move = Move("cancer", "rollback", "v2", "v1", 0, 0, 0.01, 0.0021)
    assert (demo_account.flipped(move), demo_account.prepared(move)) == ("2.1 µs", "was warm")
    assert (demo_account.flipped(MOVE), demo_account.prepared(MOVE)) == ("0.20 ms", "80 ms")


def test_r2_of_perfect_answers_is_one() -> None:
    """A regression is scored by R² on the same labels."""
    model = DemoModel(
        "cancer",
        "regression",
        np.zeros((3, 1)),
        np.array([1.0, 2.0, 6.0]),
        (version("v1", [1, 2, 6]),),
    )
    answers = [answer(1, row, "v1", v) for row, v in enumerate((1, 2, 6))]
    (score,) = demo_account.scores(answers, [model])
    assert (score.measure, score.score) == ("R²", 1.0)


@pytest.mark.parametrize(
    ("extra", "clean"),
    [
        ([], True),
        ([answer(9.6, 0, "", 0, problem="no answer: reset")], False),
        ([answer(12.0, 0, "v1", 0)], False),
        ([answer(9.6, 2, "v1", 0)], False),
    ],
    ids=["clean", "failure", "stale", "mixed"],
)
def test_the_account_is_clean_only_if_nothing_went_wrong(extra: list[Answer], clean: bool) -> None:
    """One failed, stale or mixed answer makes the demo fail, and is shown."""
    console = Console(file=io.StringIO(), width=160)
    answers = [answer(9.5, 0, "v1", 0), answer(11.0, 2, "v2", 0), *extra]
    assert demo_account.show(console, [MODEL], answers, [MOVE]) is clean
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{len(answers)} requests" in text
    assert "flip" in text
    assert "0.20 ms" in text


def test_a_rollout_that_went_wrong_is_no_clean_account(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad version that was promoted makes the demo fail, shown or as JSON."""
    answers = [answer(9.5, 0, "v1", 0), answer(11.0, 2, "v2", 0)]
    wrong = Verdict(
        "v2", "v1", "r1", "Healthy", "proved", 1.0, 0, 9, 2, 0, {"v2": 1}, 0, 0, 3, ("v2 is in",)
    )
    monkeypatch.setattr(demo_account, "verdicts", lambda *_: [wrong])
    console = Console(file=io.StringIO(), width=160)
    assert not demo_account.show(console, [MODEL], answers, [MOVE])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Wrong: v2 is in" in text
    assert not demo_account.write(console, [MODEL], answers, [MOVE])
    account = json.loads(capsys.readouterr().out)
    assert (account["ok"], account["rollouts"][0]["wrong"]) == (False, ["v2 is in"])


def test_no_answers_are_no_clean_account() -> None:
    """A demo in which nothing was asked has shown nothing."""
    assert not demo_account.show(Console(file=io.StringIO()), [MODEL], [], [])


def test_json_account_has_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json, standard output is one JSON object."""
    answers = [answer(9.5, 0, "v1", 0), answer(11.0, 2, "v2", 0)]
    assert demo_account.write(Console(file=io.StringIO()), [MODEL], answers, [MOVE])
    account = json.loads(capsys.readouterr().out)
    assert (account["ok"], account["requests"], account["failures"]) == (True, 2, 0)
    assert account["switches"][0]["flip_ms"] == 0.2
    assert [each["version"] for each in account["versions"]] == ["v1", "v2"]
    assert account["traffic"]["cancer"][0]["title"] == "v1 answers"
