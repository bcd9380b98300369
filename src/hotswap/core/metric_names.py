"""The metrics that a rollout can be guarded by and aim at. Pure."""

from __future__ import annotations

from typing import Final

from hotswap.errors import BadInput

#: Metrics that both arms have, and in which one can be shown no worse or better.
PROVABLE: Final = (
    "error_rate",
    "invalid_rate",
    "latency",
    "latency_p50",
    "latency_p95",
    "latency_p99",
)
#: Metrics with a level alone.
ABSOLUTE_ONLY: Final = ("disagreement", "prediction_drift")
KNOWN: Final = (*PROVABLE, *ABSOLUTE_ONLY, "sample_ratio")
#: Metrics that come with labels.
LATER: Final = ("accuracy", "log_loss", "brier", "auc", "mae", "rmse", "reward")


def known_metric(name: object) -> str:
    """``name`` if it is a metric. Raises `BadInput` naming those that are."""
    if name in LATER:
        raise BadInput(f"{name} needs labels, and this server keeps none: use {', '.join(KNOWN)}")
    if name not in KNOWN:
        raise BadInput(
            f"there is no metric {str(name)[:80]!r}: use {', '.join(KNOWN)}, or a 'query' of a "
            "metric source"
        )
    return str(name)
