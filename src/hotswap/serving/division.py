"""A table's split as one worker carries it out: three arms, what they share, what is read off answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from hotswap.core.routing import RouteTable, Split, assign, place
from hotswap.core.signature import Signature
from hotswap.ipc.tally import Block
from hotswap.ports import Array
from hotswap.serving.attempt import BASELINE, CANDIDATE, TWIN, First, fault_of
from hotswap.serving.link import Reply
from hotswap.serving.route import Arm
from hotswap.serving.windows import Trial
from hotswap.stats.values import bucket_value

_ARM: Final = {"baseline": BASELINE, "twin": TWIN, "candidate": CANDIDATE}
_CACHED: Final = 256

BlockOf = Callable[[str, str, str], Block]


class Division:
    """One table's split. ``offer`` is told of each first attempt that may be copied.

    ``budget_ns`` and ``reserve_ns`` are the split's own, in nanoseconds.
    """

    __slots__ = (
        "_block_of", "_blocks", "_offer", "_picked", "_shadows", "arms", "budget_ns", "model",
        "reserve_ns", "signature", "split", "stable", "trial",
    )  # fmt: skip

    def __init__(
        self,
        table: RouteTable,
        split: Split,
        arms: tuple[Arm, Arm, Arm],
        trial: Trial,
        block_of: BlockOf,
        offer: Callable[[First], None],
    ) -> None:
        assert table.signature is not None
        self.model = table.model
        self.stable = table.stable
        self.signature: Signature = table.signature
        self.split = split
        self.arms = arms
        self.trial = trial
        self.budget_ns = int(split.budget_ms * 1e6)
        self.reserve_ns = int(split.reserve_ms * 1e6)
        self._offer = offer
        self._block_of = block_of
        self._blocks: dict[int, Block] = {}
        self._shadows: dict[str, Block] = {}
        self._picked: dict[tuple[str, ...], tuple[str, bool] | None] = {}

    # --- who answers

    def arm(self, unit: int) -> int:
        """The arm of a hashed key or a coin of 64 bits."""
        return _ARM[assign(self.split, place(unit))]

    def baseline(self) -> Arm:
        """Whose answer is safe: the baseline, or in want of its hosts whoever is left."""
        baseline = self.arms[BASELINE]
        return baseline if baseline.links else self.arms[CANDIDATE]

    def unable(self) -> str:
        """Why the candidate is not even asked ("" if it is)."""
        if self.trial.breaker.tripped:
            return "breaker"
        return "" if self.arms[CANDIDATE].is_up() else "unavailable"

    def key_of(self, inputs: Mapping[str, Array]) -> bytes | None:
        """The first row's value of the input that holds the key; None if there is none."""
        name = self.split.key_input
        array = inputs.get(name) if name is not None else None
        if array is not None:
            value = array.reshape(-1)[0] if array.size else None
        else:
            names = self.signature.feature_names
            array = inputs.get(self.signature.inputs[0].name) if name in names else None
            value = None if array is None else array[0].reshape(-1)[names.index(name or "")]
        if value is None or isinstance(value, bytes):
            return value
        return str(value.item() if hasattr(value, "item") else value).encode()

    # --- counters

    def block(self, arm: int) -> Block:
        """The operational counters of an arm."""
        found = self._blocks.get(arm)
        if found is None:
            version = self.arms[arm].entry.version
            role = ("stable", "twin", "candidate")[arm]
            if arm == CANDIDATE and version == self.stable:
                role = "stable"  # during the bake it is both
            found = self._blocks[arm] = self._block_of(self.model, version, role)
        return found

    def shadow_block(self, version: str) -> Block:
        """The operational counters of a version's copies."""
        found = self._shadows.get(version)
        if found is None:
            found = self._shadows[version] = self._block_of(self.model, version, "shadow")
        return found

    # --- what came of it

    def decided(self, first: First) -> None:
        """A first attempt has its outcome: the breaker counts it, and it may be copied."""
        trial = self.trial
        failed = first.outcome != "ok"
        if first.arm != CANDIDATE:
            trial.breaker.stable(failed, first.began)
            if self.split.mirror:
                self._offer(first)
        elif trial.breaker.candidate(failed):
            trial.on_trip(trial.breaker.run)
        if first.pairing is not None:
            first.pairing.decided(first, candidate=first.arm == CANDIDATE)

    def answered_instead(self, failed: bool) -> None:
        """The baseline was asked what the candidate failed at: the breaker learns from it too."""
        self.trial.breaker.stable(failed, time.monotonic_ns())

    def fault(self, reply: Reply, wanted: tuple[str, ...]) -> str | None:
        """Why this is no valid answer; None if it is one."""
        return fault_of(reply, wanted, self.signature)

    def value(self, reply: Reply, wanted: tuple[str, ...]) -> int | None:
        """The bucket of the answer's first number; None if it has none.

        The probability of the last class where an output gives probabilities, else the first
        output's first element.
        """
        try:
            picked = self._picked[wanted]
        except KeyError:
            if len(self._picked) >= _CACHED:
                self._picked.clear()  # what is asked for comes from clients
            picked = self._picked[wanted] = self._pick(reply)
        if picked is None:
            return None
        name, last = picked
        for own, array in reply.outputs:
            if own == name:
                row = array[reply.start]
                if row.ndim:
                    row = row.reshape(-1)
                    if not row.size:
                        return None
                    row = row[-1 if last else 0]
                return bucket_value(float(row))
        return None

    def _pick(self, reply: Reply) -> tuple[str, bool] | None:
        """Which output's number, and whether its last; in the signature's order for both arms."""
        order = {spec.name: at for at, spec in enumerate(self.signature.outputs)}
        outputs = sorted(reply.outputs, key=lambda each: order.get(each[0], len(order)))
        for name, array in outputs:
            if array.ndim == 2 and array.shape[1] > 1 and array.dtype.kind == "f":
                return name, True
        name, array = outputs[0]
        return (name, False) if array.dtype.kind in "biuf" else None


__all__ = ["Division"]
