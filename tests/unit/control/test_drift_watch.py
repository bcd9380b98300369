"""Control's watch for drift: whom it looks at, what it tells, what it says to rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import structlog

from hotswap.control.drift_watch import DriftWatch
from hotswap.control.events import Events
from hotswap.core.drift_views import ColumnDrift, DriftReference, DriftSettings, DriftView
from hotswap.core.signature import Signature, TensorSpec
from hotswap.core.stats import ModelStats
from hotswap.errors import LoadError, MetricsUnavailable, Unavailable
from hotswap.testing.clock import ManualClock

SIGNATURE = Signature((TensorSpec("x", "FP64", (-1, 2)),), (), feature_names=("age", "zip"))
REFERENCES = (
    DriftReference("input", "watching", "", 5000, 5000, 1.0, 2.0, "d", 1),
    DriftReference("output", "watching", "v1", 5000, 5000, 1.0, 2.0, "d", 1),
)


def column(name: str, distance: float = 0.3, *, alarmed: bool = True, **more: Any) -> ColumnDrift:
    side = name.partition("_")[0]
    plain = ColumnDrift(
        name, side, "number", distance, 0.2, 0.1, 20.0, 18.0, 5.0 if alarmed else None,
        "above 3: 40 % of the rows, 10 % in the reference" if alarmed else "", 0.2, 0.1, 0.0, 0.0, 900,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **more)


class Jobs:
    """Stands for the job process: gives, or raises, what it is told for each model."""

    def __init__(self) -> None:
        self.answers: dict[str, DriftView | Exception] = {}
        self.asked: list[Mapping[str, Any]] = []
        self.held: asyncio.Event | None = None

    async def run(self, what: str, request: Mapping[str, Any], kind: type) -> Any:
        assert kind is DriftView
        self.asked.append(request)
        if self.held is not None:
            await self.held.wait()
        answer = self.answers[str(request["model"])]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Node:
    """A watch with all that it needs."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.events = Events(self.clock)
        self.jobs, self.now_jobs = Jobs(), Jobs()
        self.models: dict[str, str | None] = {"m": "v1"}
        self.requests = {"m": 100}
        self.watermark = self.clock.wall()
        recorded: Any = SimpleNamespace(  # of what is known of records, what it needs
            root=Path("/records"), location=None, jobs=self.now_jobs, ticks=self.jobs,
            watermark=lambda: self.watermark, redacted=("x",), hashed=("city",),
        )  # fmt: skip
        self.watch = DriftWatch(
            recorded, DriftSettings(seconds=300.0), lambda: self.models, self.stats, self.clock,
            self.events.tell, lambda _: SIGNATURE,
        )  # fmt: skip

    def stats(self) -> list[ModelStats]:
        return [ModelStats(m, "v1", "stable", success=n) for m, n in self.requests.items()]

    def says(self, *columns: ColumnDrift, fresh: tuple[str, ...] = (), **more: Any) -> None:
        plain = DriftView(
            "m", "watching", "so it is", 0.1, REFERENCES, columns, latest=self.clock.wall(),
            fresh=fresh,
        )  # fmt: skip
        self.jobs.answers["m"] = self.now_jobs.answers["m"] = msgspec.structs.replace(plain, **more)

    def told(self) -> list[str]:
        return [event.message for event in self.events.recent("drift")]


async def test_records_are_counted_up_to_where_they_are_whole() -> None:
    """What is being answered or written now is left for the next look."""
    node = Node()
    node.says()
    await node.watch.look_around()
    (asked,) = node.jobs.asked
    assert asked["kind"] == "drift"
    assert (asked["root"], asked["model"], asked["stable"]) == ("/records", "m", "v1")
    assert asked["until"] == node.watermark - 32.0
    assert not asked["reset"]
    assert asked["hidden"] == ("x", "city", "age", "x0", "zip", "x1")
    assert node.watch.view("m").looked_at == node.clock.wall()


async def test_a_new_alarm_is_told_once() -> None:
    """In the log and to who listens, with what changed; and its end, too."""
    node = Node()
    drifted = column("input_x")
    node.says(drifted, fresh=("input_x",))
    with structlog.testing.capture_logs() as logs:
        await node.watch.look_around()
    assert [(each["event"], each["columns"]) for each in logs] == [("drift", ["input_x"])]
    node.says(drifted)
    await node.watch.look_around()
    assert node.told() == [
        "input_x drifted from the reference (above 3: 40 % of the rows, 10 % in the reference)"
    ]
    (event,) = node.events.recent("drift")
    assert event.data["columns"] == ["input_x"]
    assert event.data["distances"] == [0.3]
    assert event.data["severity"] == "warning"

    node.says(column("input_x", 0.02, alarmed=False))
    await node.watch.look_around()
    assert node.told()[1:] == ["input_x is as in the reference again"]


async def test_the_end_of_watching_is_not_the_end_of_drift() -> None:
    """A column that is left out now, or another reference: nothing says that it is as it was. The
    values that its alarm named are not repeated.
    """
    node = Node()
    node.says(column("input_x"), column("input_y"), fresh=("input_x", "input_y"))
    await node.watch.look_around()
    node.says(column("input_y", 0.02, alarmed=False))
    await node.watch.look_around()
    assert node.told()[1:] == [
        "input_y is as in the reference again",
        "input_x is not held against that reference any more",
    ]
    assert node.events.recent("drift")[-1].data["causes"] == [""]
    assert await node.watch.read("m") == 0.0


async def test_many_alarms_are_one_event() -> None:
    """A feature store that broke is one thing that happened."""
    node = Node()
    names = tuple(f"input_x{at}" for at in range(40))
    node.says(*map(column, names), fresh=names)
    await node.watch.look_around()
    (event,) = node.events.recent("drift")
    assert "input_x4 and 35 more drifted" in event.message
    assert len(event.data["columns"]) == 40


async def test_models_that_nobody_asks_are_left_alone() -> None:
    """A few looks more after the last request see all of its records; then none is made."""
    node = Node()
    node.says()
    for _ in range(6):
        await node.watch.look_around()
    assert len(node.jobs.asked) == 3
    node.requests["m"] += 1
    await node.watch.look_around()
    assert len(node.jobs.asked) == 4
    node.models.clear()
    await node.watch.look_around()
    assert node.watch.views() == []


async def test_one_that_is_behind_is_looked_at_again() -> None:
    """Until all that there is was counted."""
    node = Node()
    node.says(behind=True)
    for _ in range(6):
        await node.watch.look_around()
    assert len(node.jobs.asked) == 6


async def test_before_the_recorder_is_up_nothing_is_counted() -> None:
    """What was recorded before might not be written yet."""
    node = Node()
    node.watermark = 0.0
    with pytest.raises(Unavailable, match="written nothing yet"):
        await node.watch.look("m", reset=True)
    assert node.jobs.asked == node.now_jobs.asked == []


async def test_a_failure_is_said_and_tried_again() -> None:
    """Other models are looked at all the same, and what was seen before is still shown."""
    node = Node()
    node.says(column("input_x"))
    node.models["broken"] = "v1"
    node.requests["broken"] = 1
    node.jobs.answers["broken"] = LoadError("the job process was killed")
    with structlog.testing.capture_logs() as logs:
        await node.watch.look_around()
        await node.watch.look_around()
    assert [each["model"] for each in logs if each["log_level"] == "warning"] == ["broken"]
    assert node.watch.view("broken").state == "waiting"
    assert node.watch.view("broken").message == "the job process was killed"
    node.jobs.answers["m"] = LoadError("no more")
    await node.watch.look_around()
    view = node.watch.view("m")
    assert [each.column for each in view.columns] == ["input_x"]
    assert view.problems == ("no more",)


async def test_a_reset_waits_for_a_look_that_is_made() -> None:
    """Two processes must not count the same records."""
    node = Node()
    node.says()
    node.jobs.held = asyncio.Event()
    looking = asyncio.create_task(node.watch.look_around())
    await asyncio.sleep(0)
    resetting = asyncio.create_task(node.watch.look("m", reset=True))
    for _ in range(5):
        await asyncio.sleep(0)
    assert node.now_jobs.asked == []
    node.jobs.held.set()
    await asyncio.gather(looking, resetting)
    assert [each["reset"] for each in node.now_jobs.asked] == [True]


# --- what a rollout reads


async def test_the_reading_is_the_farthest_input_that_alarmed() -> None:
    """Not what merely looks far, nor an output; a share of missing values counts too."""
    node = Node()
    node.says(column("input_x", 0.9, alarmed=False), column("output_predict", 0.8))
    await node.watch.look_around()
    assert await node.watch.read("m") == 0.0
    missing = column("input_gone", 0.01, missing=0.5, missing_reference=0.1)
    node.says(column("input_x", 0.3), missing)
    await node.watch.look_around()
    assert await node.watch.read("m") == pytest.approx(0.4)


async def test_what_is_not_known_is_no_reading() -> None:
    """Never looked, no reference yet, no records since, or no look that worked: an outage."""
    node = Node()
    with pytest.raises(MetricsUnavailable, match="not looked at yet"):
        await node.watch.read("m")
    collecting = DriftReference("input", "collecting", "", 10, 5000)
    node.says(references=(collecting, REFERENCES[1]))
    await node.watch.look_around()
    with pytest.raises(MetricsUnavailable, match="no drift reference of the inputs of 'm' yet"):
        await node.watch.read("m")
    node.says(latest=node.clock.wall() - 1000.0)
    await node.watch.look_around()
    with pytest.raises(MetricsUnavailable, match="no records of 'm' were watched"):
        await node.watch.read("m")
    node.says()
    await node.watch.look_around()
    assert await node.watch.read("m") == 0.0
    node.clock.advance(2000.0)
    with pytest.raises(MetricsUnavailable, match="in the last 900 s"):
        await node.watch.read("m")
