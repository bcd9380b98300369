"""mosec with msgspec for JSON; batched unless ``BENCH_BATCH`` is 1."""

import os

import msgspec
import numpy as np
from mosec import Server, Worker
from predictor import load

BATCH = int(os.environ["BENCH_BATCH"])


class Predict(Worker):
    """The model."""

    def __init__(self):
        self.predict = load()

    def deserialize(self, data):
        """JSON by msgspec."""
        return msgspec.json.decode(data)

    def serialize(self, data):
        """JSON by msgspec."""
        return msgspec.json.encode(data)

    def forward(self, data):
        """A list of requests when batched, else one."""
        if BATCH > 1:
            labels = self.predict(np.asarray([each["features"] for each in data]))
            return [{"prediction": int(label)} for label in labels]
        return {"prediction": int(self.predict(np.asarray([data["features"]]))[0])}


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Predict,
        num=int(os.environ["BENCH_WORKERS"]),
        max_batch_size=BATCH,
        max_wait_time=int(os.environ["BENCH_WAIT_MS"]),
    )
    server.run()
