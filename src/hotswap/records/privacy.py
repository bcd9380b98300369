"""Which inputs are kept, and how: all, some, none; some never, some only as hashes."""

from __future__ import annotations

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

    def keeps(self, name: str) -> bool:
        """Whether anything of this input is kept."""
        if name in self.redacted:
            return False
        return self.columns is None or name in self.columns or name in self.hashed

    def hides(self, name: str) -> bool:
        """Whether only a hash of it is kept."""
        return name in self.hashed

    def hash(self, values: Array) -> Array:
        """Keyed hashes of 64 bits, one an element (of any further dimensions together)."""
        flat = values.reshape(len(values), -1)
        return np.array([self._one(row) for row in flat.tolist()], dtype=np.uint64)

    def _one(self, row: list[Any]) -> int:
        parts = [each if isinstance(each, bytes) else repr(each).encode() for each in row]
        digest = blake2b(b"\0".join(parts), digest_size=8, key=self.secret).digest()
        return int.from_bytes(digest, "big")


__all__ = ["Privacy"]
