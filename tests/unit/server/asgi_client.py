"""A client that calls an ASGI application in this process, for the data plane's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec

from hotswap.core.signature import Signature
from hotswap.server.app import DataApp
from hotswap.testing.fakes import FakeModel, FakePlane, Predict, classify


class Reply:
    """One whole response."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> str:
        """The sentence of an error; fails if the body is anything else."""
        document = self.json()
        assert isinstance(document["error"], str)
        assert document["error"]
        return str(document["error"])


class Client:
    """Sends requests to an application; a `dict` or `list` body is sent as JSON."""

    def __init__(self, app: DataApp) -> None:
        self.app = app
        self.root_path = ""

    def scope(
        self, method: str, path: str, headers: Mapping[str, str] | None = None
    ) -> MutableMapping[str, Any]:
        pairs = [(k.lower().encode(), v.encode("latin-1")) for k, v in (headers or {}).items()]
        return {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": self.root_path,
            "headers": pairs,
        }

    async def send(
        self, method: str, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        raw: bytes = body if isinstance(body, bytes) else msgspec.json.encode(body)
        messages: list[MutableMapping[str, Any]] = [
            {"type": "http.request", "body": raw[:10], "more_body": True},
            {"type": "http.request", "body": raw[10:]},
        ]
        answered = asyncio.Event()
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if messages:
                return messages.pop(0)
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.app(self.scope(method, path, headers), receive, send)
        answered.set()
        start, *parts = sent
        return Reply(
            start["status"],
            {k.decode(): v.decode("latin-1") for k, v in start["headers"]},
            b"".join(part["body"] for part in parts),
        )

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.send("GET", path, b"", headers)

    async def post(
        self, path: str, body: Any = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        return await self.send("POST", path, body, headers)


def client_of(
    signature: Signature | None = None, predict: Predict = classify, **settings: Any
) -> tuple[Client, FakePlane]:
    """A client of an application with one fake model, ``demo``, and its plane."""
    plane = FakePlane({"demo": FakeModel(signature, predict=predict)})
    return Client(DataApp(plane, **settings)), plane


def json_input(
    data: Any, shape: list[int], datatype: str = "FP64", name: str = "input"
) -> dict[str, Any]:
    """One input of an infer request in JSON."""
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}
