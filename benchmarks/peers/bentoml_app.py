"""BentoML; adaptive batching with ``BENCH_BATCH`` above 1."""

import os

import bentoml
import numpy as np
from predictor import load

BATCH = int(os.environ["BENCH_BATCH"])
BATCHING = {"batchable": True, "max_batch_size": BATCH, "max_latency_ms": 1000} if BATCH > 1 else {}


@bentoml.service(workers=int(os.environ["BENCH_WORKERS"]))
class Predict:
    """The model."""

    def __init__(self) -> None:
        self.model = load()

    @bentoml.api(**BATCHING)
    def predict(self, features: np.ndarray) -> np.ndarray:
        """Rows to labels."""
        return self.model(features)
