"""LitServe; batched unless ``BENCH_BATCH`` is 1."""

import os

import litserve
import numpy as np
from predictor import load

BATCH = int(os.environ["BENCH_BATCH"])


class Api(litserve.LitAPI):
    """The model."""

    def setup(self, device):
        """Load it in the inference process."""
        self.model = load()

    def decode_request(self, request):
        """One row."""
        return request["features"]

    def predict(self, x):
        """A batch of rows, or one."""
        return self.model(np.asarray(x)) if BATCH > 1 else self.model(np.asarray([x]))[0]

    def batch(self, inputs):
        """Rows as a list."""
        return inputs

    def unbatch(self, output):
        """Labels one by one."""
        return list(output)

    def encode_response(self, output):
        """The label."""
        return {"prediction": int(output)}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.001 if BATCH > 1 else 0.0)
    litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"])
    ).run(port=int(os.environ["PORT"]), log_level="warning", generate_client_file=False)
