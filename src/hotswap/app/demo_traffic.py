"""The demo's live traffic: held-out rows over keep-alive connections, every answer kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from hotswap.app.demo_bench import DemoModel

#: Each connection asks once in this many seconds (or as soon as it has its answer, if later).
EVERY: Final = 0.008
TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class Answer:
    """What became of one request.

    ``sent`` is on the monotonic clock, ``seconds`` until the whole answer was in. ``version`` is
    what the header named, ``named`` what the body named. ``fallback`` says why stable answered
    in a candidate's place, if it did. ``problem`` is a sentence unless the answer was a 200 that
    could be read.
    """

    model: str
    row: int
    sent: float
    seconds: float
    version: str = ""
    named: str = ""
    prediction: float = float("nan")
    problem: str = ""
    fallback: str = ""


class Connection:
    """One keep-alive HTTP/1.1 connection that is opened again when it was closed."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body. Raises OSError or EOFError if there is none."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self._streams
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = (line.partition(":") for line in answer[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in fields}
            content = await reader.readexactly(int(headers.get("content-length", "0")))
        except BaseException:
            self.close()
            raise
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(answer[0].split()[1]), headers, content

    def close(self) -> None:
        """Hang up; the next `post` opens a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Traffic:
    """Asks for the held-out rows of ``models`` in turns until `stop`.

    ``plan`` says which model each connection asks; every other connection speaks the Open
    Inference Protocol, the rest ``/predict``.
    """

    def __init__(
        self, host: str, port: int, plan: Sequence[DemoModel], every: float = EVERY
    ) -> None:
        self.answers: list[Answer] = []
        self._every = every
        self._stopping = asyncio.Event()
        self._seen: dict[tuple[str, str], set[int]] = {}
        # Connections of one model start apart, so that together they soon ask for every row.
        peers = Counter(model.name for model in plan)
        begun: Counter[str] = Counter()
        self._asking = []
        for number, model in enumerate(plan):
            first = begun[model.name] * len(model.rows) // peers[model.name]
            begun[model.name] += 1
            asking = self._ask(Connection(host, port), model, number, first)
            self._asking.append(asyncio.create_task(asking))

    async def stop(self) -> None:
        """Let every connection finish its request, then close it."""
        self._stopping.set()
        await asyncio.gather(*self._asking)

    async def covered(self, model: DemoModel, version: str, patience: float = 20.0) -> None:
        """Wait until ``version`` has answered every held-out row (or for ``patience`` seconds)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                rows = len(model.rows)
                while len(self._seen.get((model.name, version), ())) < rows:  # noqa: ASYNC110
                    await asyncio.sleep(self._every)

    async def _ask(self, connection: Connection, model: DemoModel, number: int, row: int) -> None:
        path, bodies, read = protocol(model, v2=number % 2 == 0)
        # They start apart in time too, so as not to knock at once.
        due = time.monotonic() + self._every * number / max(1, len(self._asking))
        try:
            while not self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), max(0.0, due - time.monotonic()))
                    break
                answer = await self._one(connection, model, path, bodies[row], read, row)
                self.answers.append(answer)
                if not answer.problem:
                    self._seen.setdefault((model.name, answer.version), set()).add(row)
                row = (row + 1) % len(bodies)
                due = max(due + self._every, time.monotonic())
        finally:
            connection.close()

    async def _one(
        self,
        connection: Connection,
        model: DemoModel,
        path: str,
        body: bytes,
        read: Callable[[bytes], tuple[str, float]],
        row: int,
    ) -> Answer:
        sent = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                status, headers, content = await connection.post(path, body)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as problem:
            took = time.monotonic() - sent
            why = str(problem) or type(problem).__name__
            return Answer(model.name, row, sent, took, problem=f"no answer: {why}")
        took = time.monotonic() - sent
        version = headers.get("x-hotswap-version", "")
        if status != 200:
            why = f"{status}: {content[:200].decode(errors='replace')}"
            return Answer(model.name, row, sent, took, version, problem=why)
        try:
            named, prediction = read(content)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as problem:
            why = f"an answer that cannot be read: {problem}"
            return Answer(model.name, row, sent, took, version, problem=why)
        fallback = headers.get("x-hotswap-fallback", "")
        return Answer(model.name, row, sent, took, version, named, prediction, fallback=fallback)


def protocol(
    model: DemoModel, *, v2: bool
) -> tuple[str, list[bytes], Callable[[bytes], tuple[str, float]]]:
    """The path, one body a held-out row, and how to read (version, prediction) from an answer."""
    rows = model.rows.tolist()
    if v2:
        bodies = [msgspec.json.encode(_v2_request(row)) for row in rows]
        return f"/v2/models/{model.name}/infer", bodies, _read_v2
    bodies = [msgspec.json.encode({"model": model.name, "features": row}) for row in rows]
    return "/predict", bodies, _read_predict


def _v2_request(row: list[float]) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}
    return {"inputs": [tensor], "outputs": [{"name": "predict"}]}


def _read_v2(content: bytes) -> tuple[str, float]:
    answer: dict[str, Any] = msgspec.json.decode(content)
    output = next(each for each in answer["outputs"] if each["name"] == "predict")
    return str(answer["model_version"]), float(output["data"][0])


def _read_predict(content: bytes) -> tuple[str, float]:
    answer: dict[str, Any] = msgspec.json.decode(content)
    return str(answer["version"]), float(answer["prediction"])
