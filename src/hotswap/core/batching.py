"""Which waiting requests run together. Pure.

No delay is ever added: a batch is what arrived while the last one ran. A batch never mixes
layouts or requested outputs (one key), and its size is counted in rows. Keys are served in the
order of their oldest request, so that a rare layout is not starved by a common one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What a queue holds: something with a batch key and a number of rows."""

    @property
    def key(self) -> Hashable: ...

    @property
    def total_rows(self) -> int: ...

    @property
    def alone(self) -> bool: ...


T = TypeVar("T", bound=Sized)


class BatchQueue(Generic[T]):
    """Waiting items, grouped by key; `take` gives the next batch.

    An item that must run ``alone`` is a batch of its own, before what came after it with the
    same key. An item with more rows than fit is a batch of its own too.
    """

    def __init__(self, batch_rows: int) -> None:
        self.batch_rows = batch_rows
        self.rows = 0
        self._groups: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, item: T) -> None:
        """Queue an item behind those of its key."""
        group = self._groups.get(item.key)
        if group is None:
            self._groups[item.key] = group = deque()
        group.append(item)
        self.rows += item.total_rows

    def take(self) -> list[T]:
        """The next batch: never empty while anything waits."""
        if not self._groups:
            return []
        key, group = next(iter(self._groups.items()))
        first = group.popleft()
        batch = [first]
        rows = first.total_rows
        if not first.alone:
            while group:
                item = group[0]
                if item.alone or rows + item.total_rows > self.batch_rows:
                    break
                batch.append(group.popleft())
                rows += item.total_rows
        self.rows -= rows
        # What is left of this key goes behind the other keys.
        del self._groups[key]
        if group:
            self._groups[key] = group
        return batch
