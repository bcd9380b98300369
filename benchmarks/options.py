"""What a run of the benchmarks measures, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Options:
    """``peers``: their names; empty: ours alone. Durations in seconds."""

    quick: bool = False
    peers: list[str] = field(default_factory=list)
    retune: bool = False
    say: Callable[[str], None] = print

    def pick(self, full: Any, quick: Any) -> Any:
        """``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full

    @property
    def rounds(self) -> int:
        """Interleaved rounds of the comparison with peers."""
        return int(self.pick(3, 1))

    @property
    def seconds(self) -> float:
        """How long one closed-loop measurement takes."""
        return float(self.pick(4.0, 2.0))
