"""A model's life: switches, rollbacks and removals in any order, against a simple model of it."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hotswap.core.lifecycle import Intent, ModelDocument, decided, flipped, rollback_target
from hotswap.core.signature import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1,)),))


class ModelLife(RuleBasedStateMachine):
    """Drives a `ModelDocument` as control does, and keeps its own book beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.document = ModelDocument("m", 1)
        self.registered: set[str] = set()
        self.bad: set[str] = set()
        self.served: list[str] = []
        self.names = 0

    def _flip(self, version: str, kind: str) -> None:
        intent = Intent(version, "operation", kind, self.document.revision + 1)
        before = self.document
        meant = decided(before, intent)
        assert meant.active == before.active
        self.document = flipped(meant, intent, SIGNATURE)
        assert self.document.active == version
        assert self.document.intent is None
        assert self.document.revision == before.revision + 1
        assert self.document.signature == SIGNATURE
        self.served.append(version)

    @rule()
    def register(self) -> None:
        """A new version; ids are never used twice."""
        self.names += 1
        self.registered.add(f"v{self.names}")

    @precondition(lambda self: self.registered)
    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        """To any registered version, the active one included: it is trusted again."""
        version = data.draw(st.sampled_from(sorted(self.registered)))
        self.bad.discard(version)
        self._flip(version, "switch")

    def _target(self) -> str | None:
        return rollback_target(self.document, frozenset(self.registered))

    @precondition(lambda self: self._target() is not None)
    @rule()
    def rollback(self) -> None:
        """To the target; what is left is bad from now on."""
        target = self._target()
        assert target is not None
        assert target not in self.bad
        left = self.document.active
        assert left is not None
        self._flip(target, "rollback")
        self.bad.add(left)

    @precondition(lambda self: self.registered - {self.document.active, self._target()})
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """What neither serves nor is the rollback target may be removed."""
        free = self.registered - {self.document.active, self._target()}
        self.registered.discard(data.draw(st.sampled_from(sorted(free, key=str))) or "")

    @invariant()
    def the_target_is_the_latest_good_version_that_served(self) -> None:
        """Registered, not active, not rolled back from; the latest of those, or None."""
        good = [
            version
            for version in self.served
            if version != self.document.active
            and version in self.registered
            and version not in self.bad
        ]
        assert self._target() == (good[-1] if good else None)

    @invariant()
    def history_names_each_version_once(self) -> None:
        """The latest last."""
        history = self.document.history
        assert len(set(history)) == len(history)
        if self.document.active is not None:
            assert history[-1] == self.document.active

    @invariant()
    def it_survives_the_store(self) -> None:
        """What is written is what is read."""
        raw = msgspec.msgpack.encode(self.document)
        assert msgspec.msgpack.decode(raw, type=ModelDocument) == self.document


TestModelLife = ModelLife.TestCase


def test_rolling_back_twice_does_not_return_to_what_was_left() -> None:
    """v1, v2, v3, back to v2, back again: v1, never v3."""
    document = ModelDocument("m", 1)
    versions = frozenset({"v1", "v2", "v3"})
    for number, version in enumerate(("v1", "v2", "v3"), 1):
        document = flipped(document, Intent(version, "", "switch", number), None)
    assert rollback_target(document, versions) == "v2"
    document = flipped(document, Intent("v2", "", "rollback", 4), None)
    assert rollback_target(document, versions) == "v1"
    document = flipped(document, Intent("v1", "", "rollback", 5), None)
    assert rollback_target(document, versions) is None


def test_switching_to_a_version_again_clears_its_mark() -> None:
    """An operator who switches to a version that was rolled back from makes it a target again."""
    document = ModelDocument("m", 1)
    for number, (version, kind) in enumerate(
        [
            ("v1", "switch"),
            ("v2", "switch"),
            ("v1", "rollback"),
            ("v2", "switch"),
            ("v3", "switch"),
        ],
        1,
    ):
        document = flipped(document, Intent(version, "", kind, number), None)
    assert rollback_target(document, frozenset({"v1", "v2", "v3"})) == "v2"
