"""Which inputs are kept, and how: all, some, none; some never, some only as hashes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Privacy(msgspec.Struct, frozen=True):
    """``columns``: the only inputs that are kept, None for all. ``redacted`` ones never are;
    of ``hashed`` ones a keyed hash is, by which equal values can be told and none can be read.

    >>> privacy = Privacy(columns=("age", "name"), redacted=("name",))
    >>> privacy.keeps("age"), privacy.keeps("name"), privacy.keeps("zip")
    (True, False, False)
    """

    columns: tuple[str, ...] | None = None
    redacted: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    secret: bytes = b""

    def keeps(self, name: str, tensor: str | None = None) -> bool:
        """Whether anything of this input is kept. ``tensor``: of which it is a column; what is
        said of that is said of all its columns.
        """
        names = {name, tensor}
        if not names.isdisjoint(self.redacted):
            return False
        return self.columns is None or not names.isdisjoint((*self.columns, *self.hashed))

    def hides(self, name: str, tensor: str | None = None) -> bool:
        """Whether only a hash of it is kept."""
        return not {name, tensor}.isdisjoint(self.hashed)

    def tells_apart(self, names: Sequence[str]) -> bool:
        """Whether anything is said of single ones of these columns."""
        said = (*(self.columns or ()), *self.redacted, *self.hashed)
        return not set(names).isdisjoint(said)

    @property
    def partial(self) -> bool:
        """Whether some values are to leave no trace, wherever they passed."""
        return bool(self.redacted or self.hashed or self.columns is not None)

    def hash(self, values: Array) -> Array:
        """Keyed hashes of 64 bits, one an element (of any further dimensions together)."""
        flat = values.reshape(len(values), -1)
        return np.array([self._one(row) for row in flat.tolist()], dtype=np.uint64)

    def _one(self, row: list[Any]) -> int:
        digest = blake2b(digest_size=8, key=self.secret)
        for each in row:
            part = each if isinstance(each, bytes) else repr(each).encode()
            digest.update(len(part).to_bytes(4, "little"))
            digest.update(part)
        return int.from_bytes(digest.digest(), "big")


__all__ = ["Privacy"]
