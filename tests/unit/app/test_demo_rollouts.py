"""How the demo follows a rollout: what it asks for, counts, shows, and when it gives up."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest
from rich.console import Console
from rich.text import Text

from hotswap.app.demo_rollouts import CASES, Tally, Watching, line, roll_out
from hotswap.app.demo_server import DemoFailed, DemoServer
from hotswap.app.demo_traffic import Answer
from hotswap.core.plan import Analyse, Mirror, Promote, compile_steps
from hotswap.core.rollout_views import JournalView, RolloutView
from hotswap.core.strategy import parse
from tests.unit.web import samples


class FakeServer:
    """Shows one view after the other, the last of them for ever."""

    def __init__(self, *views: RolloutView) -> None:
        self.views = list(views)
        self.body: dict[str, Any] = {}

    async def roll_out(self, body: dict[str, Any]) -> RolloutView:
        self.body = body
        return await self.rollout("r-12")

    async def rollout(self, id: str) -> RolloutView:
        assert id == "r-12"
        return self.views.pop(0) if len(self.views) > 1 else self.views[0]

    async def journal(self, id: str) -> list[JournalView]:
        assert id == "r-12"
        return samples.journal()


def answer(version: str, model: str = "fraud", problem: str = "", fallback: str = "") -> Answer:
    return Answer(model, 0, 1.0, 0.01, version, version, 0.0, problem, fallback)


@pytest.mark.parametrize("case", CASES, ids=[case.version for case in CASES])
def test_each_case_is_a_rollout_that_promotes_by_proof_alone(case: Any) -> None:
    """The server takes its body as it is; a promotion needs proof, and stands behind the gate."""
    steps = compile_steps(parse(case.body("cancer")))
    assert Promote(proof=True) in steps
    assert Analyse() in steps
    assert any(isinstance(step, Mirror) for step in steps) == (case.version != "v4")


async def test_it_is_followed_to_its_end() -> None:
    """One line for each change, and what it ended as with its journal."""
    console = Console(file=io.StringIO(), width=200)
    going, over = samples.running(), samples.rollout()
    server = FakeServer(going, going, over)
    told = await roll_out(cast("DemoServer", server), CASES[0], "fraud", [], Watching(console))
    assert (told.view, told.journal) == (over, tuple(samples.journal()))
    assert told.begin < told.end
    assert server.body["model"] == "fraud"
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("\n") == 2
    assert "v1 75 %, v2 25 %" in text
    assert f"RolledBack: {samples.WHY}" in text


async def test_one_that_never_ends_fails_the_demo() -> None:
    """After the patience there is an error that says where it stands."""
    server = cast("DemoServer", FakeServer(samples.running()))
    watching = Watching(Console(file=io.StringIO()))
    with pytest.raises(DemoFailed, match="did not end within 0 s: it is Progressing, after 80"):
        await roll_out(server, CASES[0], "fraud", [], watching, patience=0.0)


def test_a_terminal_is_drawn_on() -> None:
    """The screen is drawn with what clients see below it, and taken away in the end."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True, legacy_windows=False)
    with Watching(console, lambda view, width: Text(f"{view.id} on {width}")) as watching:
        watching.show(samples.running(), "8 live requests")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("r-12 on 100", "8 live requests", "v1 75 %, v2 25 %"):
        assert part in text


def test_nothing_is_drawn_elsewhere() -> None:
    """In a file there are lines alone, without control characters."""
    console = Console(file=io.StringIO(), width=100)
    with Watching(console, lambda view, width: Text("drawn")) as watching:
        watching.show(samples.running(), "8 live requests")
        watching.show(samples.running(), "9 live requests")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text == f"   {line(samples.running())}\n"
    assert "\x1b" not in text


def test_the_tally_counts_from_where_it_began() -> None:
    """What was before, and other models, are not counted; nothing is counted twice."""
    answers = [answer("v1")]
    tally = Tally(answers, "fraud")
    assert str(tally) == "0 live requests, 0 failed"
    answers += [answer("v1"), answer("v2"), answer("v9", model="other")]
    assert str(tally) == "2 live requests, 0 failed; answered by v1 ×1, v2 ×1"
    answers += [answer("", problem="503"), answer("v1", fallback="error")]
    said = "4 live requests, 1 failed; answered by v1 ×2, v2 ×1; 1 in a candidate's place"
    assert [str(tally), str(tally)] == [said, said]
