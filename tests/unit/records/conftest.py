"""What tests of records share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.records.recorded import Keeping


@pytest.fixture
def keeps(tmp_path: Path) -> Iterator[Callable[..., Keeping]]:
    """Makes a recorder with these settings, in a folder of its own."""
    made: list[Keeping] = []

    def make(**settings: Any) -> Keeping:
        folder = tmp_path / f"kept-{len(made)}"
        folder.mkdir()
        made.append(Keeping(folder, **settings))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def keeping(keeps: Callable[..., Keeping]) -> Keeping:
    """One with the settings that are usual."""
    return keeps()
