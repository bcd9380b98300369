"""``hotswap rollout watch``: when it ends and how, what it prints, and what it survives."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from rich.console import Console

from hotswap.cli import output, rollout_watch
from hotswap.cli.client import CommandFailed, Unreachable
from hotswap.cli.rollout_screen import line, screen
from hotswap.cli.rollout_watch import Look, looked, phase_named
from hotswap.core.rollout_views import RolloutView
from hotswap.testing.fake_control import FakeControl
from tests.unit.cli.conftest import Run
from tests.unit.web.samples import rollout, running


class Clock:
    """Time that goes on only while someone sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def _answer(view: RolloutView) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return answer


def _looks(
    answers: Callable[[], dict[str, Any]],
    until: str | None = None,
    timeout: float | None = None,
) -> Iterator[Look]:
    clock = Clock()
    return looked(_answer(running()), answers, until, timeout, clock, clock.sleep)


def test_it_looks_until_the_rollout_is_over() -> None:
    """Every look is given on, the final one last."""
    rest = iter([running(), running(generation=10), rollout()])
    looks = list(_looks(lambda: _answer(next(rest))))
    assert [look.view.phase for look in looks] == ["Progressing"] * 3 + ["RolledBack"]


def test_a_promoted_version_that_is_still_watched_has_come_far_enough() -> None:
    """Without a phase to wait for, Healthy ends it; else only the last state does."""
    healthy = rollout(phase="Healthy", reason="watching", final=False)
    looks = list(_looks(lambda: _answer(healthy)))
    assert [look.view.phase for look in looks] == ["Progressing", "Healthy"]
    rest = iter([healthy, healthy, rollout()])
    assert len(list(_looks(lambda: _answer(next(rest)), "RolledBack"))) == 4


def test_it_ends_in_the_phase_that_it_was_to_wait_for() -> None:
    """Although the rollout goes on."""
    rest = iter([running(), rollout(phase="Baking", final=False)])
    assert list(_looks(lambda: _answer(next(rest)), "Baking"))[-1].view.phase == "Baking"


def test_it_gives_up_after_its_timeout() -> None:
    """And says in which phase the rollout is."""
    with pytest.raises(CommandFailed, match=r"after 10 s, fraud/v2 is still Progressing"):
        list(_looks(lambda: _answer(running()), timeout=10.0))


def test_a_server_that_comes_back_is_waited_for() -> None:
    """Meanwhile the last view is shown with why there is no newer one."""
    answers: list[RolloutView | None] = [None] * 59 + [running()] + [None] * 59 + [rollout()]
    rest = iter(answers)

    def ask() -> dict[str, Any]:
        view = next(rest)
        if view is None:
            raise Unreachable("gone")
        return _answer(view)

    looks = list(_looks(ask))
    assert [look.problem for look in looks[:3]] == ["", "gone", "gone"]
    assert looks[-1].view.phase == "RolledBack"


def test_a_server_that_stays_away_is_not_waited_for_longer_than_thirty_seconds() -> None:
    """The error is why it did not answer."""

    def ask() -> dict[str, Any]:
        raise Unreachable("gone for good")

    seen: list[Look] = []
    with pytest.raises(Unreachable, match="gone for good"):
        seen.extend(_looks(ask))
    assert len(seen) == 30 / rollout_watch.POLL_SECONDS


def test_an_answer_that_is_an_error_ends_it_at_once() -> None:
    """A server that refuses is not one that restarts."""

    def ask() -> dict[str, Any]:
        raise CommandFailed("no such rollout", 404)

    with pytest.raises(CommandFailed, match="no such rollout"):
        list(_looks(ask))


@pytest.mark.parametrize("text", ["BAKING", "rolled_back", "Rolling-Back"])
def test_phases_are_known_in_any_spelling(text: str) -> None:
    """Of case and of the joint."""
    assert phase_named(text) in ("Baking", "RolledBack", "RollingBack")


def test_an_unknown_phase_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(CommandFailed, match="Preparing, Progressing, Paused"):
        phase_named("Happy")


@pytest.fixture
def watched(run: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> str:
    """A canary that runs; looks come quickly."""
    monkeypatch.setattr(rollout_watch, "POLL_SECONDS", 0.01)
    for version in ("v1", "v2"):
        run("models", "add", "fraud", f"/m/{version}", "--version", version)
    run("switch", "fraud", "v1")
    answer = json.loads(run("rollout", "start", "fraud", "v2", "--steps", "5,50", "--json").stdout)
    return str(answer["id"])


@pytest.mark.parametrize(
    ("phase", "code"),
    [("Healthy", 0), ("Completed", 0), ("RolledBack", 1), ("Failed", 1), ("Degraded", 1)],
)
def test_its_exit_code_says_how_the_rollout_ended(
    run: Run, control: FakeControl, watched: str, phase: str, code: int
) -> None:
    """0 only if nothing is wrong; else one line on stderr says what is."""
    control.see(watched, phase=phase, reason="guardrail", message="because of it")
    result = run("rollout", "watch", watched)
    assert result.exit_code == code, result.output
    assert "because of it" in result.stdout
    assert ("because of it" in result.stderr) == (code == 1)


def test_a_phase_that_can_no_longer_come_is_a_failure(
    run: Run, control: FakeControl, watched: str
) -> None:
    """Promoted, where RolledBack was waited for."""
    control.see(watched, phase="Healthy", message="promoted")
    result = run("rollout", "watch", "fraud", "--until", "RolledBack")
    assert result.exit_code == 1
    assert "never became RolledBack" in result.stderr
    control.see(watched, phase="RolledBack", message="back")
    assert run("rollout", "watch", "fraud", "--until", "RolledBack").exit_code == 0


def test_without_a_terminal_each_change_is_one_line(
    run: Run, control: FakeControl, watched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks that saw nothing new print nothing."""
    looks = 0
    changes = iter([{}, {}, {"phase": "Paused", "reason": "user"}, {}, {"phase": "Healthy"}])

    def after_a_look(seconds: float) -> None:
        nonlocal looks
        looks += 1
        change = next(changes)
        if change:
            control.see(watched, message="moved", **change)

    monkeypatch.setattr(rollout_watch, "looked", partial(looked, sleep=after_a_look))
    lines = run("rollout", "watch", watched).stdout.splitlines()
    assert looks == 5
    assert len(lines) == 3
    assert "Progressing" in lines[0]
    assert "Paused (user)" in lines[1]
    assert "Healthy" in lines[2]


def test_with_json_each_change_is_one_document(
    run: Run, control: FakeControl, watched: str
) -> None:
    """As the server gave it."""
    control.see(watched, phase="Healthy", message="promoted")
    (document,) = run("rollout", "watch", watched, "--json").stdout.splitlines()
    assert json.loads(document)["phase"] == "Healthy"


def test_a_start_can_be_watched_at_once(run: Run, control: FakeControl, watched: str) -> None:
    """The command lasts as long as the rollout, and its exit code is the rollout's."""
    run("rollout", "abort", watched)
    timer = threading.Timer(0.3, lambda: control.see("r-2", phase="Healthy", message="promoted"))
    timer.start()
    result = run("rollout", "start", "fraud", "v2", "--force", "--watch")
    timer.join()
    assert result.exit_code == 0, result.output
    assert "promoted" in result.stdout.splitlines()[-1]


def test_on_a_terminal_it_is_drawn_and_the_last_state_stays(
    run: Run, control: FakeControl, watched: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole view of the end is printed, however small the terminal is."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=100, height=5)
    monkeypatch.setattr(output, "_stdout", lambda: console)
    control.see(watched, phase="Healthy", message="promoted at last")
    assert run("rollout", "watch", watched).exit_code == 0
    assert "promoted at last" in shown.getvalue().rsplit("fraud", 1)[1]


def _text(view: RolloutView, width: int) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), color_system=None)
    console.print(screen(view, width, "waiting"))
    return console.export_text()


def test_the_screen_shows_rail_weights_metrics_and_why() -> None:
    """Everything that a decision rests on is to be seen."""
    shown = _text(rollout(), 140)
    for text in (
        "✔ candidate at 5 % ─ ✔ hold 5 min ─ ✔ candidate at 25 % ─ ● 500 requests ─ ○ proof",
        "v2  ──────────────────────────────────────── 0 %",
        "RolledBack (guardrail)  took 7 min 41 s",
        "at least 0.845 ×",
        "0.515 % (62/12,034)",
        "v2 is worse in error_rate: evidence 37:1",
        "v2 fails 8 times as often as v1.",
        "v1 answered 17 requests in the place of v2.",
        "dry run",
        "waiting",
    ):
        assert text in shown


@pytest.mark.parametrize("width", [80, 100, 140])
def test_steps_are_not_broken_within(width: int) -> None:
    """A rail that is too long goes on in the next line."""
    shown = _text(running(), width)
    assert "○ proof that it is no worse" in shown
    assert max(len(each.rstrip()) for each in shown.splitlines()) <= width


def test_a_line_says_all_that_changed() -> None:
    """Phase, step, weights and the sentence; a reason that repeats the phase is left out."""
    view = msgspec.structs.replace(running(), reason="running")
    assert line(view) == (
        "[7 min 41 s] Progressing step 4 of 7, v1 75 %, v2 25 % · "
        "after 80 requests nothing says that v2 is worse"
    )
