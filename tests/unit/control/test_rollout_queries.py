"""A guardrail's query is tried before a rollout begins: a mistake is told then, not at 3 a.m."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hotswap.errors import BadInput, MetricsUnavailable, NotFound
from tests.unit.control.fakes import World
from tests.unit.control.traffic import tick


class FakeSource:
    """A metric source that gives, or raises, what it is told for each query."""

    def __init__(self, **answers: float | Exception | None) -> None:
        self.answers = answers
        self.asked: list[str] = []
        #: queries that are answered only once this says so
        self.hangs: dict[str, asyncio.Event] = {}

    async def read(self, query: str) -> float | None:
        self.asked.append(query)
        if query in self.hangs:
            await self.hangs[query].wait()
        answer = self.answers[query]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Nothing is held."""


async def sourced(served: World, source: FakeSource) -> World:
    """The same node with a metric source."""
    served.sources["prometheus"] = source
    await served.restart()
    return served


def body(*queries: str, **more: Any) -> dict[str, Any]:
    """A canary of v2 that is guarded by these queries."""
    rails = [{"metric": f"r{n}", "query": query, "max": 0.5} for n, query in enumerate(queries)]
    return {"model": "m", "version": "v2", "strategy": "canary", "guardrails": rails} | more


async def test_a_wrong_query_begins_nothing(served: World) -> None:
    """Neither a start nor a plan is made of it, and the sentence is the source's."""
    world = await sourced(served, FakeSource(fine=0.1, wrong=BadInput("parse error")))
    for act in (world.service.start_rollout, world.service.plan_rollout):
        with pytest.raises(BadInput, match="parse error"):
            await act(body("fine", "wrong"))
    assert await world.service.rollouts() == []
    await world.service.start_rollout(body("fine"))
    assert len(await world.service.rollouts()) == 1


@pytest.mark.parametrize("now", [MetricsUnavailable("gone"), None, 9.0])
async def test_what_a_query_says_now_refuses_nothing(served: World, now: object) -> None:
    """An outage, no data yet, and a level that is too high are for the rollout to deal with."""
    source = FakeSource(query=now)  # type: ignore[arg-type]
    world = await sourced(served, source)
    plan = await world.service.plan_rollout(body("query"))
    view = await world.service.start_rollout(body("query"))
    assert source.asked == ["query", "query"]
    assert plan is not None
    assert not view.final


async def test_a_source_that_is_out_is_not_asked_for_every_query(served: World) -> None:
    """A start waits for one timeout at most."""
    source = FakeSource(a=MetricsUnavailable("gone"), b=1.0)
    world = await sourced(served, source)
    await world.service.start_rollout(body("a", "b"))
    assert source.asked == ["a"]


async def test_a_repeated_start_asks_nothing(served: World) -> None:
    """With its idempotency key the first answer is given again, whatever the query gives now."""
    source = FakeSource(query=0.1)
    world = await sourced(served, source)
    first = await world.service.start_rollout(body("query", idempotency_key="k"))
    source.answers["query"] = BadInput("gives 2 samples")
    again = await world.service.start_rollout(body("query", idempotency_key="k"))
    assert again.id == first.id
    assert source.asked == ["query"]


async def test_nothing_is_asked_for_what_is_refused_anyway(served: World) -> None:
    """An unknown version is told before any query is tried."""
    source = FakeSource(query=0.1)
    world = await sourced(served, source)
    with pytest.raises(NotFound):
        await world.service.start_rollout(body("query", version="v9"))
    assert source.asked == []


async def test_a_query_needs_a_source(served: World) -> None:
    """Without one the start says which setting gives it."""
    with pytest.raises(BadInput, match="--prometheus-url"):
        await served.service.start_rollout(body("query"))


async def test_a_query_that_hangs_keeps_no_other_from_being_read(served: World) -> None:
    """While a rollout runs its queries are read side by side."""
    source = FakeSource(a=0.1, b=0.2)
    world = await sourced(served, source)
    view = await world.service.start_rollout(body("a", "b"))
    source.hangs["a"] = asyncio.Event()
    await tick(world)
    run = world.service._rollouts._runs[view.id]
    assert {name: reading.value for name, reading in run.readings.items()} == {"r1": 0.2}
    source.hangs["a"].set()
    await tick(world)
    assert run.readings["r0"].value == 0.1
