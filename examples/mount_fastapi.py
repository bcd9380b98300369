"""hotswap's routes inside a FastAPI application.

    python examples/models.py models && uvicorn --app-dir examples mount_fastapi:app

Then ``POST /models/predict`` is hotswap's, and ``/score/{row}`` is this application's own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from sklearn.datasets import load_breast_cancer

from hotswap import Engine

engine = Engine(Path(os.environ.get("MODELS", "models")))
rows = load_breast_cancer().data


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The engine lives as long as the application."""
    async with engine:
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/models", engine.asgi())


@app.get("/score/{row}")
async def score(row: int) -> dict[str, object]:
    """One row of the data set, scored in this process."""
    answer = await engine.predict("tumours", rows[row : row + 1])
    return {"row": row, "class": int(answer.values[0]), "version": answer.version}
