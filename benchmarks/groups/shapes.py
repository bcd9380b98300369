"""How protocols, workers and rows a request change what one node carries."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np

from benchmarks import artifacts, wrk
from benchmarks.options import Options
from benchmarks.ours import WORK, Hotswap, body_file


def _models() -> Any:
    return artifacts.folder(WORK / "models-shapes", {"bench": {"v1": "lr.skops"}})


def protocols(options: Options) -> dict[str, Any]:
    """The same row by v2 (label; label and probabilities) and by /predict (always both)."""
    server = Hotswap(_models(), name="protocols")
    cases = {
        "v2, predict": ("v2", "/v2/models/bench/infer"),
        "v2, predict and predict_proba": ("v2_both", "/v2/models/bench/infer"),
        "/predict": ("features", "/predict"),
    }
    found: dict[str, Any] = {}
    with server.run():
        for name, (protocol, path) in cases.items():
            served = server_view(server, protocol, path)
            found[name] = {}
            for c in (1, 32):
                seen = wrk.run(served.url, served.body, connections=c, seconds=options.seconds)
                found[name][str(c)] = msgspec.to_builtins(seen)
            options.say(f"{name}: {found[name]['32']['rps']:,.0f}/s")
    return {"cases": found}


def server_view(server: Hotswap, protocol: str, path: str) -> Any:
    """The running server under another protocol (its state is left alone)."""
    from benchmarks.served import Served

    return Served(server.name, protocol, server.command, server.port, path, protocol, None)


def workers(options: Options) -> dict[str, Any]:
    """One, two and four front ends before one host."""
    found: dict[str, Any] = {}
    for count in (1, 2, 4):
        server = Hotswap(_models(), name=f"workers-{count}", workers=count)
        with server.run():
            served = server_view(server, "v2", "/v2/models/bench/infer")
            found[str(count)] = {}
            for c in (1, 32):
                seen = wrk.run(served.url, served.body, connections=c, seconds=options.seconds)
                found[str(count)][str(c)] = msgspec.to_builtins(seen)
        options.say(f"{count} workers: {found[str(count)]['32']['rps']:,.0f}/s")
    return {"workers": found}


def binary_body(rows: np.ndarray[Any, Any]) -> tuple[bytes, int]:
    """A v2 request with its tensor behind the JSON, and the length of the JSON."""
    raw = np.ascontiguousarray(rows, dtype="<f8").tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": list(rows.shape),
                    "datatype": "FP64",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ],
            "outputs": [{"name": "predict", "parameters": {"binary_data": True}}],
        }
    ).encode()
    return head + raw, len(head)


def rows(options: Options) -> dict[str, Any]:
    """1, 64 and 1024 rows a request as JSON and as binary tensors, with 8 connections."""
    X, _ = artifacts.data()
    server = Hotswap(_models(), name="rows")
    found: list[dict[str, Any]] = []
    with server.run():
        for count in (1, 64, 1024):
            batch = X[np.arange(count) % len(X)]
            text = json.dumps(artifacts.bodies(batch.tolist())["v2"]).encode()
            raw, length = binary_body(batch)
            for form, body, headers in (
                ("json", text, {}),
                ("binary", raw, {"CONTENT_TYPE": "application/octet-stream", "HEADER_LENGTH": str(length)}),
            ):  # fmt: skip
                path = body_file(f"rows-{count}.{form}", body)
                url = f"http://127.0.0.1:{server.port}/v2/models/bench/infer"
                seen = wrk.run(url, path, connections=8, seconds=options.seconds, headers=headers)
                found.append(
                    {"rows": count, "form": form, "rows_per_second": seen.rps * count}
                    | msgspec.to_builtins(seen)
                )
                options.say(f"{count} rows as {form}: {seen.rps:,.0f} requests/s")
    return {"cases": found}
