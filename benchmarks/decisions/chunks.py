"""Work cut into seeded pieces, on all cores, with its progress shown.

A piece is named by its seed, so a result does not depend on how many processes there were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

#: The first number of every seed.
SEED = 20_261_121

T = TypeVar("T")


def generator(*names: int) -> np.random.Generator:
    """The chance of one piece of work."""
    return np.random.default_rng((SEED, *names))


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion.

    >>> [round(x, 4) for x in wilson(0, 100)]
    [0.0, 0.037]
    """
    share = hits / of
    middle = share + z * z / (2 * of)
    reach = z * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    whole = 1 + z * z / of
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


class Work(NamedTuple):
    """How much is to be done, and by whom. ``quick``: a hundredth or so, for a first look."""

    quick: bool
    pool: ProcessPoolExecutor
    progress: Progress

    def runs(self, full: int) -> int:
        """So many repetitions."""
        return max(20, full // 50) if self.quick else full

    def map(self, title: str, function: Callable[..., T], pieces: Sequence[tuple[Any, ...]]) -> list[T]:  # fmt: skip
        """``function(*piece)`` of every piece, in their order."""
        task = self.progress.add_task(title, total=len(pieces))
        waiting = {self.pool.submit(function, *piece): at for at, piece in enumerate(pieces)}
        done: dict[int, T] = {}
        for future in as_completed(waiting):
            done[waiting[future]] = future.result()
            self.progress.advance(task)
        return [done[at] for at in range(len(pieces))]


@contextmanager
def working(console: Console, *, quick: bool) -> Iterator[Work]:
    """A pool of as many processes as there are cores."""
    shown = Progress(
        TextColumn("{task.description:44}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=console,
    )
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool, shown:
        yield Work(quick, pool, shown)
