"""Whatever happens in whatever order: what must always hold of a rollout holds at every step."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hotswap.core.analysis import Reading
from hotswap.core.commands import COMMANDS
from hotswap.core.plan import Adapt, Analyse, Mirror, Pair, Promote, SetWeight
from hotswap.core.rollout import EXPOSED, FINAL, Rollout, analysed
from hotswap.core.routing import WHOLE
from hotswap.core.verification import verify
from hotswap.core.windows import Window
from hotswap.errors import Conflict
from tests.unit.core.world import World

BODIES: list[dict[str, Any]] = [
    {"strategy": "immediate"},
    {"config": {"evaluation_period_seconds": 2}},
    {"config": {"evaluation_period_seconds": 2, "require_proof": False}},
    {"config": {"evaluation_period_seconds": 2},
     "guardrails": [{"metric": "error_rate"}, {"metric": "cpu", "query": "up", "max": 1}]},
    {"strategy": "gradual", "config": {"duration_seconds": 4}, "on_insufficient": "extend"},
    {"steps": [{"shadow_percentage": 50}, {"requests": 50}, 5, {"approval": True}, 50]},
    {"strategy": "ab_test", "config": {"test_duration_seconds": 5, "promote_winner": True}},
    {"strategy": "shadow", "config": {"min_requests": 50}, "on_insufficient": "rollback"},
    {"strategy": "champion_challenger", "config": {"min_pairs": 50}},
    {"strategy": "bandit", "config": {"duration_seconds": 60}},
]  # fmt: skip
RAISED = ("running", "promoting", "baking")


class RolloutMachine(RuleBasedStateMachine):
    """Traffic, clocks, crashes, commands and every kind of trouble against one rollout."""

    world: World

    @initialize(body=st.sampled_from(BODIES), seed=st.integers(0, 999))
    def begin(self, body: dict[str, Any], seed: int) -> None:
        quick = {"bake_seconds": 20, "watch_seconds": 20, "deadline_seconds": 60, **body}
        self.world = World(quick, p0=0.01, p1=0.01, rps=100, seed=seed)
        self.world.readings = {"cpu": Reading(0.5)}
        self.saved = self.packed()
        self.last = self.world.rollout
        self.promoted_by_hand = False
        self.waiting: list[Window] = []
        self.calm = 0
        self.advance(0.2, 4)

    def packed(self) -> bytes:
        return msgspec.msgpack.encode(self.world.rollout)

    # --- what happens

    @rule(seconds=st.sampled_from([0.0, 0.2, 1.0, 5.0, 60.0, 3600.0]), times=st.integers(1, 5))
    def clock(self, seconds: float, times: int) -> None:
        """Ticks of any length, each decided by what is seen then."""
        self.advance(seconds, times)

    @rule(times=st.integers(20, 120))
    def good_times(self, times: int) -> None:
        """Nothing is missing for a while, so that the rollout gets on."""
        world = self.world
        world.ready = world.flips = True
        world.outage, world.readings = "", {"cpu": Reading(0.5)}
        world.rps = max(world.rps, 500.0)
        if world.status.holds.keys() & {"user", "approval", "insufficient"}:
            self.command("resume", False)
        self.advance(1.0, times)

    def advance(self, seconds: float, times: int) -> None:
        self.calm += 1
        for _ in range(times):
            before = self.world.rollout
            shown = self.world.exposed
            rps, self.world.rps = self.world.rps, min(self.world.rps, 2000.0 / max(seconds, 0.2))
            analysis = None
            moved = self.world.tick(seconds)
            self.world.rps = rps
            analysis = moved.analysis
            after = self.world.rollout
            self.check_step(before, after)
            if before.status.state == "running" and after.status.state == "promoting":
                assert analysis is not None
                self.check_proof(before, after, analysis.proven)
            if moved.moved:
                self.saved = self.packed()
            raised = self.world.exposed is not None and self.world.exposed != shown
            assert not raised or (self.world.ready and not self.world.outage)

    def check_proof(self, before: Rollout, after: Rollout, proven: bool) -> None:
        """Promoted by proof, by a verdict of the test, or because proof was not asked for."""
        steps = before.steps
        promote = next(step for step in steps if isinstance(step, Promote))
        tests = [at for at, s in enumerate(steps) if isinstance(s, Analyse) and s.metric]
        won = bool(tests) and not set(tests) & set(after.status.passed)
        assert proven or won or not promote.proof

    @rule(
        worse=st.sampled_from([0.01, 0.0, 0.01, 0.02, 1.0]),
        slow=st.sampled_from([1.0, 0.8, 1.0, 2.0]),
        rps=st.sampled_from([0.0, 10.0, 1000.0]),
    )
    def requests(self, worse: float, slow: float, rps: float) -> None:
        """The candidate and its traffic change."""
        self.world.p1, self.world.slow, self.world.rps = worse, slow, rps

    @precondition(lambda self: self.world.exposed is not None)
    @rule(count=st.integers(1, 300))
    def late(self, count: int) -> None:
        """Windows that stay under way for a while."""
        assert self.world.exposed is not None
        self.waiting.append(self.world.window(self.world.exposed, count))

    @precondition(lambda self: self.waiting)
    @rule(order=st.randoms(use_true_random=False))
    def arrive(self, order: Any) -> None:
        """They arrive in any order, also of stages that are long over."""
        order.shuffle(self.waiting)
        self.world.deliver(self.waiting)
        self.waiting = []

    @rule()
    def crash(self) -> None:
        """Control dies: what was not saved is lost, the data plane goes on as it is."""
        self.world.rollout = msgspec.msgpack.decode(self.saved, type=Rollout)
        entries = self.world.journal
        while entries and entries[-1].record.after.generation > self.world.status.generation:
            entries.pop()
        self.last = self.world.rollout

    @rule()
    def save(self) -> None:
        """Counters and clocks are saved now and then; loading gives the same value."""
        self.saved = self.packed()
        assert msgspec.msgpack.decode(self.saved, type=Rollout) == self.world.rollout

    @precondition(lambda self: self.calm > 4)
    @rule(command=st.sampled_from(COMMANDS), force=st.booleans())
    def operator(self, command: str, force: bool) -> None:
        """Anything, at any time; what is refused changes nothing."""
        self.command(command, force)

    def command(self, command: str, force: bool) -> None:
        before = self.world.rollout
        analysis = analysed(before, self.world.seen())
        try:
            self.world.command(command, force=force)
        except Conflict:
            assert self.world.rollout is before
            return
        after = self.world.rollout
        if after is before:
            assert command == "abort"
            return
        assert after.status.generation == before.status.generation + 1
        if command == "promote":
            assert not analysis.tripped
            assert force or not (analysis.failed or analysis.distrust)
            self.promoted_by_hand = True
        if command == "retry":
            assert after.evidence.stages == ()
            self.promoted_by_hand = False
            self.world.breaker = self.world.load_error = ""
            self.world.restarts = 0
        else:
            assert before.status.state not in FINAL
        self.saved = self.packed()
        self.last = after
        self.world.act()

    @rule(
        name=st.sampled_from(["ready", "flips", "outage", "reading", "target", "exposed"]),
        good=st.booleans(),
    )
    def trouble(self, name: str, good: bool) -> None:
        """Hosts are lost, the store or a source goes away, flips do not happen; or it all comes back."""
        world = self.world
        if name == "outage":
            world.outage = "" if good else "the store is gone"
        elif name == "reading":
            world.readings = {"cpu": Reading(0.5) if good else Reading(error="no answer")}
        elif name == "target":
            world.target = "v1" if good else None
        elif name == "exposed":
            world.exposed = world.exposed if good else None
        else:
            setattr(world, name, good)

    @precondition(lambda self: self.calm > 8)
    @rule(what=st.sampled_from(["breaker", "load_error", "restarts", "reading", "active"]))
    def accident(self, what: str) -> None:
        """The candidate dies, trips or cannot be loaded, or somebody switches by hand."""
        world = self.world
        if what == "restarts":
            world.restarts += 1
        elif what == "reading":
            world.readings = {"cpu": Reading(5.0)}
        elif what == "active" and world.status.state in ("baking", "watching"):
            world.active, world.exposed = "v3", None
        elif what in ("breaker", "load_error"):
            setattr(world, what, "it fails")

    # --- what always holds

    def check_step(self, before: Rollout, after: Rollout) -> None:
        """Every move has a greater generation; what is over does not move; clocks only grow."""
        was, now = before.status, after.status
        visible = was.state, was.step, was.exposure, was.reason, set(was.holds)
        if visible != (now.state, now.step, now.exposure, now.reason, set(now.holds)):
            assert now.generation == was.generation + 1
        else:
            assert now.generation - was.generation in (0, 1)
        if was.state in FINAL:
            assert now == was
        assert now.elapsed >= was.elapsed
        assert now.stage >= was.stage
        assert all(now.peaks.get(name, 0.0) >= was.peaks[name] for name in was.peaks)

    @invariant()
    def nothing_is_shown_where_nothing_may_be(self) -> None:
        """On the way back, before the start and at the end nothing of the candidate is wanted."""
        status = self.world.status
        if status.state not in EXPOSED:
            assert status.exposure is None
            if status.state not in ("watching", "healthy"):
                assert self.world.exposed is None

    @invariant()
    def weights_are_the_plans(self) -> None:
        """No weight is wanted that no step names, nor a mirror or a pair that none asks for."""
        shape = self.world.status.exposure
        if shape is None:
            return
        steps = self.world.rollout.steps
        weights = {step.weight for step in steps if isinstance(step, SetWeight | Pair)}
        adapts = [step for step in steps if isinstance(step, Adapt)]
        if shape.bake:
            assert (shape.weight, self.world.status.state) == (WHOLE, "baking")
        elif shape.mirror:
            assert shape.mirror in {step.share for step in steps if isinstance(step, Mirror)}
            assert shape.weight == 0
        else:
            adapted = any(step.low <= shape.weight <= step.high for step in adapts)
            assert shape.weight in weights or adapted
        assert shape.pair == any(isinstance(step, Pair) for step in steps) or shape.bake

    @invariant()
    def the_journal_can_be_decided_again(self) -> None:
        """Every decision that is written down comes out as it stands."""
        assert verify(self.world.entries()[-3:]).mismatches == ()

    def teardown(self) -> None:
        """With time alone it ends, wherever it was left; and the whole journal can be verified."""
        if not hasattr(self, "world"):
            return
        self.world.rps = 0.0
        for _ in range(1500):
            if self.world.rollout.final:
                break
            self.world.tick(6 * 3600.0)
        assert self.world.rollout.final, self.world.status
        assert verify(self.world.entries()).mismatches == ()


TestRolloutMachine = RolloutMachine.TestCase
TestRolloutMachine.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
