"""Labels and rewards as clients send them, decoded strictly: an error names the place, and takes in nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from hotswap.core.spec import Limits
from hotswap.errors import BadInput, TooLarge
from hotswap.ipc.records import Label
from hotswap.server.bodies import decode_json
from hotswap.server.messages import valid_id

#: Puts labels where the recorder finds them; False if there is no room now.
TakeLabels = Callable[[list[Label]], bool]

#: Labels in one request, at most.
MOST: Final = 100_000
#: Labels that are put in at once: a ring has room for few large pieces.
GROUP: Final = 1000
#: A body of more bytes takes milliseconds to read.
LONG: Final = 64 * 1024
_TEXT: Final = 1024
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_KEYS: Final = ("request_id", "label", "reward", "row")


def parse(body: bytes, limits: Limits) -> list[Label]:
    """One object or a list of them. Raises `BadInput`, `TooLarge`."""
    given = decode_json(body, limits)
    if isinstance(given, Mapping):
        found = _labels(given, "")
    elif isinstance(given, list):
        found = []
        for at, each in enumerate(given):
            found += _labels(each, f" (entry {at})")
            if len(found) > MOST:
                break
    else:
        raise BadInput("Send an object with request_id and label or reward, or a list of them.")
    if len(found) > MOST:
        raise TooLarge(f"These are more than {MOST} labels: send them in several requests.")
    return found


def _labels(given: Any, where: str) -> list[Label]:
    """One object's labels: one a row."""
    if not isinstance(given, Mapping):
        raise BadInput(f"Each label is an object with request_id{where}.")
    for key in given:
        if key not in _KEYS:
            raise BadInput(
                f"A label has an unknown key {str(key)[:60]!r}{where}: it takes {', '.join(_KEYS)}."
            )
    request_id = given.get("request_id")
    if not isinstance(request_id, str) or not valid_id(request_id.encode("utf-8", "replace")):
        raise BadInput(f"request_id must be the id that the prediction was answered with{where}.")
    row = given.get("row", 0)
    if not isinstance(row, int) or isinstance(row, bool) or not 0 <= row < 1 << 31:
        raise BadInput(f"row must be a whole number from 0{where}.")
    has_label, has_reward = "label" in given, "reward" in given
    if has_label == has_reward:
        raise BadInput(f"Give either label or reward{where}.")
    values = given["label"] if has_label else given["reward"]
    if isinstance(values, list):
        if "row" in given:
            raise BadInput(f"A list has one value a row: leave row out{where}.")
        if not values:
            raise BadInput(f"The list of labels is empty{where}.")
        # Of some rows nothing may be known yet.
        numbered = [(at, value) for at, value in enumerate(values) if value is not None]
    else:
        numbered = [(row, values)]
    make = _label if has_label else _reward
    return [make(request_id, at, value, where) for at, value in numbered]


def _label(request_id: str, row: int, value: Any, where: str) -> Label:
    if isinstance(value, str):
        if len(value) > _TEXT:
            raise BadInput(f"A label is longer than {_TEXT} characters{where}.")
        if not value.isascii() and _SURROGATE.search(value):
            raise BadInput(f"A label holds half a character (a lone surrogate){where}.")
        return Label(request_id, row, text=value)
    return Label(request_id, row, label=_number("label", value, where))


def _reward(request_id: str, row: int, value: Any, where: str) -> Label:
    return Label(request_id, row, reward=_number("reward", value, where))


def _number(name: str, value: Any, where: str) -> float:
    if not isinstance(value, int | float) or abs(value) > 1e300 or not math.isfinite(value):
        text = ", or a text" if name == "label" else ""
        kinds = f"a finite number, true or false{text}"
        raise BadInput(f"{name} must be {kinds}{where}.")
    return float(value)


__all__ = ["GROUP", "LONG", "MOST", "TakeLabels", "parse"]
