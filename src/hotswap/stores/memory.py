"""A store that lives and ends with the process: for tests and for `Engine` without a folder."""

from __future__ import annotations

from hotswap.errors import Conflict, StoreError


class MemoryStore:
    """`hotswap.ports.Store` in a dictionary. Used from one event loop.

    What was put outlives `close` and `open` of the same object, as it would in a file.
    """

    def __init__(self) -> None:
        # A deleted document stays as (None, generation), so that no generation is given twice.
        self._documents: dict[tuple[str, str], tuple[bytes | None, int]] = {}
        self._open = False

    async def open(self) -> None:
        """Ready at once."""
        self._open = True

    async def close(self) -> None:
        """Refuse further calls until `open`."""
        self._open = False

    async def get(self, kind: str, key: str) -> tuple[bytes, int] | None:
        """The value and its generation, or None."""
        value, generation = self._document(kind, key)
        return None if value is None else (value, generation)

    async def put(self, kind: str, key: str, value: bytes, generation: int | None = None) -> int:
        """Write; the new generation, higher than any that this key ever had.

        Raises `Conflict` if ``generation`` is given and is not the present one (0: absent).
        """
        present, last = self._document(kind, key)
        current = 0 if present is None else last
        if generation is not None and generation != current:
            raise Conflict(conflict_message(kind, key, generation))
        self._documents[kind, key] = bytes(value), last + 1
        return last + 1

    async def delete(self, kind: str, key: str) -> None:
        """Remove it; nothing happens if it is not there."""
        value, last = self._document(kind, key)
        if value is not None:
            self._documents[kind, key] = None, last + 1

    async def scan(self, kind: str) -> list[tuple[str, bytes, int]]:
        """Every (key, value, generation) of a kind, by key (code point order)."""
        self._check_open()
        return sorted(
            (key, value, generation)
            for (kind_, key), (value, generation) in self._documents.items()
            if kind_ == kind and value is not None
        )

    def _document(self, kind: str, key: str) -> tuple[bytes | None, int]:
        self._check_open()
        return self._documents.get((kind, key), (None, 0))

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("the store is not open: call open() first")


def conflict_message(kind: str, key: str, generation: int) -> str:
    """The sentence of a lost compare-and-set, the same for every store."""
    if generation == 0:
        return f"{kind} {key} exists already: read it again"
    return f"{kind} {key} was changed or removed by another write: read it again"
