"""Single values of a body, checked. Pure."""

from __future__ import annotations

from hotswap.errors import BadInput


def number(name: str, value: object, *, low: float, high: float) -> float:
    """A number within these bounds, as a float. Raises `BadInput`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadInput(f"{name} must be a number from {low:g} to {high:g}, not {str(value)[:40]!r}")
    return float(value)


def count(name: str, value: object, *, least: int = 0, most: int = 10**9) -> int:
    """A whole number within these bounds. Raises `BadInput`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"{name} must be a whole number from {least} to {most}")
    return value


def flag(name: str, value: object) -> bool:
    """True or false. Raises `BadInput`."""
    if not isinstance(value, bool):
        raise BadInput(f"{name} must be true or false")
    return value


def choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of these words. Raises `BadInput`."""
    if value not in choices:
        raise BadInput(f"{name} must be one of {', '.join(choices)}, not {str(value)[:40]!r}")
    return str(value)
