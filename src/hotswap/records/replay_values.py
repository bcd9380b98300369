"""What a replay is asked with and answers, as it crosses between processes."""

from __future__ import annotations

import math

import msgspec

from hotswap.core.signature import TensorSpec


class Kept(msgspec.Struct, frozen=True):
    """What the server keeps of inputs: of ``columns`` (None: all), nothing of ``redacted`` ones, of
    ``hashed`` ones a hash. For sentences: what is recorded decides.
    """

    columns: tuple[str, ...] | None = None
    redacted: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()


class Source(msgspec.Struct, frozen=True):
    """Where one input is: in one column, or ``by_feature`` in one for each of its features."""

    spec: TensorSpec
    columns: tuple[str, ...]
    by_feature: bool = False

    @property
    def size(self) -> int | None:
        """Elements of a row, None where rows may have different numbers."""
        shape = self.spec.shape[1:]
        return None if any(each < 0 for each in shape) else math.prod(shape)


class Planned(msgspec.Struct, frozen=True):
    """``rows`` of ``requests`` are run, of those recorded; ``left_out`` lack inputs. ``answered``:
    rows by who answered them, the most first. ``where``: SQL.
    """

    sources: tuple[Source, ...]
    where: str
    rows: int
    requests: int
    left_out: int
    answered: dict[str, int]

    def stable(self, version: str) -> str:
        """Who answered most of them, beside that version."""
        return next((each for each in self.answered if each != version), version)


class Done(msgspec.Struct, frozen=True):
    """``errors``: rows without a valid answer; ``seconds``: within the version."""

    errors: int
    seconds: float
    problems: tuple[str, ...]


__all__ = ["Done", "Kept", "Planned", "Source"]
