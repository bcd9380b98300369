"""The demo's rollouts: what is tried, what is asked of it, and how each is followed to its end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from hotswap.app.demo_server import DemoFailed, DemoServer
from hotswap.app.demo_traffic import Answer
from hotswap.core.rollout_views import JournalView, RolloutView
from hotswap.web import phrases

#: Nothing is decided in a hurry: on a busy machine proof takes longer.
PATIENCE_SECONDS: Final = 420.0
_EVERY: Final = 0.25

#: What every candidate must show itself to be. The margins are wide, for a demo of a minute: a
#: narrower one takes more requests to prove. Latency is sampled some 20 times a second, so that of
#: the median a hundred samples tell within seconds, of a tail only thousands, in minutes.
GUARDRAILS: Final[tuple[dict[str, Any], ...]] = (
    {"metric": "error_rate", "max_ratio": 1.5, "max_increase": 0.01},
    {"metric": "invalid_rate", "max_ratio": 1.5, "max_increase": 0.01},
    {"metric": "latency_p50", "max_ratio": 2.0},
    {"metric": "sample_ratio"},
)
#: In the shadow both versions are asked, and without a label it shows how often they disagree. A
#: better version corrects what the first gets wrong, about one row in eight; more than one in four
#: is no correction.
SHADOWED: Final[tuple[dict[str, Any], ...]] = (*GUARDRAILS, {"metric": "disagreement", "max": 0.25})
SHADOW: Final[tuple[dict[str, Any], ...]] = ({"shadow_percentage": 100}, {"requests": 500})
CANARY: Final[tuple[dict[str, Any], ...]] = (
    {"weight": 10},
    {"hold_seconds": 3},
    {"weight": 50},
    {"hold_seconds": 3},
)


@dataclass(frozen=True)
class Case:
    """One rollout of the story. ``end``: the phase in which it must end, or the story is wrong.

    ``unseen``: the candidate must not have answered anybody. ``replaced``: stable must have
    answered in its place.
    """

    version: str
    title: str
    steps: tuple[dict[str, Any], ...]
    guardrails: tuple[dict[str, Any], ...]
    end: str
    unseen: bool = False
    replaced: bool = False

    def body(self, model: str) -> dict[str, Any]:
        """What is asked of the server."""
        return {
            "model": model,
            "version": self.version,
            "strategy": "canary",
            "steps": list(self.steps),
            "guardrails": list(self.guardrails),
            "bake_seconds": 2,
            "watch_seconds": 0,
            "deadline_seconds": PATIENCE_SECONDS,
        }


CASES: Final = (
    Case(
        "v2",
        "v2 is better: shadow, then 10 %, then 50 %, until it is proved no worse",
        SHADOW + CANARY,
        SHADOWED,
        "Healthy",
    ),
    Case(
        "v3",
        "v3 was saved without its scaler: it raises nothing, and answers nonsense",
        SHADOW + CANARY,
        SHADOWED,
        "RolledBack",
        unseen=True,
    ),
    Case(
        "v4",
        "v4 raises on some rows (log 0), and goes straight to 10 % of the traffic",
        CANARY,
        GUARDRAILS,
        "RolledBack",
        replaced=True,
    ),
)


@dataclass(frozen=True)
class Told:
    """One rollout that is over, and its journal. ``begin``, ``end``: when it was asked for and seen
    to be over, on the monotonic clock.
    """

    case: Case
    view: RolloutView
    journal: tuple[JournalView, ...]
    begin: float
    end: float


#: Draws a rollout on a terminal of so many columns.
Screen = Callable[[RolloutView, int], RenderableType]


def line(view: RolloutView) -> str:
    """Where a rollout stands, in a line: the weights and the step, or how it came to its end."""
    shares = ", ".join(
        f"{name} {phrases.percent(weight)}" for name, weight in sorted(view.weights.items())
    )
    going = view.phase == "Progressing" and view.step < len(view.steps)
    said = view.steps[view.step].label if going else f"{view.phase}: {view.message}"
    return f"[{phrases.duration(view.elapsed_seconds):>6}] {shares} · {said}"


class Tally:
    """Counts what became of the requests to ``model`` from now on."""

    def __init__(self, answers: Sequence[Answer], model: str) -> None:
        self._answers, self._model, self._next = answers, model, len(answers)
        self.asked = self.failed = self.replaced = 0
        self.versions: Counter[str] = Counter()

    def __str__(self) -> str:
        """What was counted until now, in a sentence."""
        new = self._answers[self._next :]
        self._next += len(new)
        for each in new:
            if each.model == self._model:
                self.asked += 1
                self.failed += bool(each.problem)
                self.replaced += bool(each.fallback)
                if not each.problem:
                    self.versions[each.version] += 1
        by = ", ".join(f"{name} ×{count:,}" for name, count in sorted(self.versions.items()))
        said = f"{self.asked:,} live requests, {self.failed:,} failed"
        said += f"; answered by {by}" if by else ""
        return said + (f"; {self.replaced:,} in a candidate's place" if self.replaced else "")


class Watching:
    """Shows looks at a rollout: drawn over one another if there is a ``screen`` and a terminal to
    draw on, and a line a change in any case.
    """

    def __init__(self, console: Console, screen: Screen | None = None) -> None:
        self._console, self._screen, self._shown = console, screen, ""
        # What is drawn over is taken away in the end: the lines tell what happened.
        live = Live(console=console, auto_refresh=False, transient=True)
        self._live = live if screen and console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, view: RolloutView, note: str) -> None:
        """One look; ``note`` is what the clients see."""
        state = f"{view.phase} {view.step} {sorted(view.weights.items())}"
        if state != self._shown:
            self._shown = state
            self._console.print(f"   {line(view)}", highlight=False, markup=False, soft_wrap=True)
        if self._live and self._screen:
            screen = self._screen(view, self._console.width)
            self._live.update(Group(Text(), screen, Text(note, "bold")), refresh=True)


async def roll_out(
    server: DemoServer,
    case: Case,
    model: str,
    answers: Sequence[Answer],
    watching: Watching,
    patience: float = PATIENCE_SECONDS,
) -> Told:
    """Start the rollout of ``case`` and follow it to its end.

    Raises `DemoFailed` if it has not ended after ``patience`` seconds.
    """
    begin = time.monotonic()
    tally = Tally(answers, model)
    with watching:
        view = await server.roll_out(case.body(model))
        while True:
            watching.show(view, str(tally))
            if view.final:
                break
            if time.monotonic() - begin > patience:
                raise DemoFailed(
                    f"the rollout of {model} {case.version} did not end within {patience:.0f} s: "
                    f"it is {view.phase}, {view.message}"
                )
            await asyncio.sleep(_EVERY)
            view = await server.rollout(view.id)
    end = time.monotonic()
    return Told(case, view, tuple(await server.journal(view.id)), begin, end)
