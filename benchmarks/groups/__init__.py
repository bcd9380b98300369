"""The groups of measurements, by the name that ``--only`` takes.

Each is a function of the options that returns what it saw as plain JSON values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.groups import (
    capacity,
    loading,
    memory,
    overload,
    recording,
    registry,
    requests,
    shapes,
    swaps,
    switching,
)
from benchmarks.options import Options

GROUPS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "sklearn": capacity.sklearn,
    "onnx": capacity.onnx,
    "switching": switching.measure,
    "loading": loading.measure,
    "ready": switching.ready,
    "memory": memory.measure,
    "overload": overload.measure,
    "protocols": shapes.protocols,
    "workers": shapes.workers,
    "rows": shapes.rows,
    "registry": registry.measure,
    "request": requests.measure,
    "recording": recording.measure,
    "swaps": swaps.measure,
}
