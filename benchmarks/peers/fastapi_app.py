"""The plain FastAPI design: a typed body, a model in the process."""

import os

import numpy as np
from fastapi import FastAPI
from predictor import load
from pydantic import BaseModel

app = FastAPI()
predict_rows = load()


class Request(BaseModel):
    """One row."""

    features: list[float]


if os.environ.get("BENCH_ASYNC") == "1":

    @app.post("/predict")
    async def predict(request: Request):
        """On the event loop."""
        return {"prediction": int(predict_rows(np.asarray([request.features]))[0])}

else:

    @app.post("/predict")
    def predict(request: Request):
        """On a thread of the pool."""
        return {"prediction": int(predict_rows(np.asarray([request.features]))[0])}
