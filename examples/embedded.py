"""Serve a models folder inside this process, switch under traffic, and roll back.

python examples/embedded.py
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from models import write
from sklearn.datasets import load_breast_cancer

from hotswap import Engine


async def main(folder: Path) -> None:
    """Predict all the time while the active version changes twice."""
    rows = load_breast_cancer().data
    answered: Counter[str] = Counter()
    async with Engine(folder) as engine:
        done = asyncio.Event()

        async def traffic() -> None:
            while not done.is_set():
                answer = await engine.predict("tumours", rows[:1])
                answered[answer.version] += 1

        client = asyncio.create_task(traffic())
        for version in ("v1", "v2"):
            await engine.registry.switch_model("tumours", version)
            enough = answered[version] + 100
            while answered[version] < enough:  # some traffic on it
                await asyncio.sleep(0.001)
        done.set()
        await client
        answer = await engine.predict("tumours", rows[:3])
        print("classes:", answer.values.tolist(), "by", answer.version)
    print("answers by version:", dict(answered))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary))
        asyncio.run(main(Path(temporary)))
