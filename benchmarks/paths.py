"""Where the benchmarks keep what they make."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
CACHE = ROOT / ".cache" / "bench"
MODELS = CACHE / "models"
LOGS = CACHE / "logs"
RESULTS = ROOT / "bench-results"


def make_folders() -> None:
    """Make the cache's folders; what is there stays."""
    for folder in (CACHE, MODELS, LOGS, RESULTS):
        folder.mkdir(parents=True, exist_ok=True)
