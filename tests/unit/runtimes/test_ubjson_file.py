"""The strict walk over UBJSON: whole files pass, every shortened one does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotswap.runtimes.ubjson_file import Malformed, check
from tests.models import write_breast_cancer


def test_every_cut_of_a_real_model_is_found(tmp_path: Path) -> None:
    """A model passes whole; cut at any byte, or with a byte more, it does not."""
    path = write_breast_cancer(tmp_path, "xgb-ubj") / "model.ubj"
    check(path)
    content = path.read_bytes()
    for length in [1, 2, *range(3, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(Malformed):
            check(path)
    path.write_bytes(content + b"}")
    with pytest.raises(Malformed, match="follows"):
        check(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 1000, "nested too deep"),
        (b"[#i\xff]", "negative"),
        (b"{i\x01aQ}", "unknown type"),
        (b"[$d]", "no count"),
        (b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff", "ends early"),
        (b"{d", "no integer"),
        (b"", "ends early"),
    ],
)
def test_malformed(content: bytes, reason: str, tmp_path: Path) -> None:
    """Each malformation is named."""
    path = tmp_path / "model.ubj"
    path.write_bytes(content)
    with pytest.raises(Malformed, match=reason):
        check(path)


@pytest.mark.parametrize(
    "content",
    [
        b"{i\x01a[$d#i\x02\x00\x00\x00\x00\x00\x00\x00\x00i\x01bSi\x02hiU\x01cT}",
        b"[#i\x02i\x01Z",
        b"{#i\x01i\x01aF",
        b"[$[#i\x01]",
        b"[]",
    ],
)
def test_whole(content: bytes, tmp_path: Path) -> None:
    """Counted, typed and open containers are read."""
    path = tmp_path / "model.ubj"
    path.write_bytes(content)
    check(path)
