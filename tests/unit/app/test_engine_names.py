"""The package's public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hotswap
from hotswap import SwitchingStrategyType
from hotswap.core.strategy import STRATEGIES


def test_every_public_name_is_there() -> None:
    """All of ``__all__`` can be imported, and is listed."""
    assert all(getattr(hotswap, name).__name__ == name for name in hotswap.__all__)
    assert set(hotswap.__all__) <= set(dir(hotswap))


def test_an_unknown_name() -> None:
    """It is an ordinary attribute error."""
    with pytest.raises(AttributeError, match="no attribute 'Motor'"):
        hotswap.Motor  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    """Each name brings what it needs when it is used."""
    code = (
        "import sys, hotswap\n"
        "print([name for name in sys.modules if name.startswith('hotswap.') or name == 'numpy'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_strategies_are_those_of_a_rollout() -> None:
    """Each by the name that a rollout's body has."""
    assert tuple(each.value for each in SwitchingStrategyType) == STRATEGIES
