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
#: Metrics that labels decide, however late they come.
LABELLED: Final = ("accuracy", "log_loss", "brier", "auc", "mae", "rmse", "reward")
#: Metrics with a level alone.
ABSOLUTE_ONLY: Final = ("disagreement", "prediction_drift", "input_drift")
#: Where `input_drift` is read: hotswap's own watch of the records.
DRIFT: Final = "drift"
KNOWN: Final = (*PROVABLE, *LABELLED, *ABSOLUTE_ONLY, "sample_ratio")


def known_metric(name: object) -> str:
    """``name`` if it is a metric. Raises `BadInput` naming those that are."""
    if name not in KNOWN:
        raise BadInput(
            f"there is no metric {str(name)[:80]!r}: use {', '.join(KNOWN)}, or a 'query' of a "
            "metric source"
        )
    return str(name)
