"""Ray Serve; batched unless ``BENCH_BATCH`` is 1."""

import os
import signal

import numpy as np
import ray
from predictor import load
from ray import serve
from starlette.requests import Request

BATCH = int(os.environ["BENCH_BATCH"])


@serve.deployment(max_ongoing_requests=128)
class Predict:
    """The model."""

    def __init__(self):
        self.model = load()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.001)
    async def rows(self, rows):
        """Many requests at once."""
        return self.model(np.asarray(rows)).tolist()

    async def __call__(self, request: Request):
        """One row."""
        features = (await request.json())["features"]
        if BATCH > 1:
            return {"prediction": await self.rows(features)}
        return {"prediction": int(self.model(np.asarray([features]))[0])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Predict.bind())
    try:
        signal.sigwait([signal.SIGTERM, signal.SIGINT])
    finally:
        ray.shutdown()
