"""The data plane's HTTP front end: parse, lease, decode, predict, encode, release.

`DataApp.respond` answers one whole request and knows no transport: `hotswap.server.protocol`
calls it directly, and `hotswap.server.asgi` makes an ASGI application of it.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Final

from hotswap.core.spec import Limits
from hotswap.errors import (
    BadInput,
    HotswapError,
    InvalidOutput,
    NotFound,
    Unauthorized,
    Unavailable,
)
from hotswap.ports import Array, DataPlane, Lease
from hotswap.server import feedback, infer, infer_answer, invocations, metadata, predict
from hotswap.server.asgi import Receive, Scope, Send, serve
from hotswap.server.bodies import COMPRESS_FROM, compress, decompress
from hotswap.server.calls import check_type
from hotswap.server.errors import Origin, translate
from hotswap.server.feedback import TakeLabels
from hotswap.server.messages import (
    JSON_TYPE,
    Answer,
    Headers,
    Request,
    RequestIds,
    valid_id,
)
from hotswap.server.plans import Plans
from hotswap.server.routes import Match, Router
from hotswap.server.tensors import show

#: Called after each answer: method, path, status, seconds since arrival, request id.
AccessLog = Callable[[str, str, int, float, str], None]

Handler = Callable[[Request, Match], Awaitable[Answer]]
Reader = Callable[[Request, Match], Answer]

#: What the arms of a running test are called in the path.
ARMS: Final = {"a": "baseline", "b": "candidate"}

_INFER_TYPES: Final = ("application/json", "application/octet-stream")
_PREDICT_TYPES: Final = ("application/json",)
_CACHED_VERSIONS: Final = 1024
_JSON: Final = b"application/json"
_OCTETS: Final = (b"content-type", b"application/octet-stream")


class DataApp:
    """Answers the data plane's routes over a `DataPlane`.

    ``token``: what ``Authorization: Bearer`` must carry on all but health routes (None: open).
    ``access_log``: called after each answer. ``labels``: takes in labels and rewards; None where no
    records are kept. ``draining``: while true, readiness says no; set
    by the server that drains.
    """

    def __init__(
        self,
        plane: DataPlane,
        limits: Limits | None = None,
        *,
        token: str | None = None,
        access_log: AccessLog | None = None,
        labels: TakeLabels | None = None,
    ) -> None:
        self.plane = plane
        self.limits = limits or Limits()
        self.draining = False
        self.access_log = access_log
        self._authorization = None if token is None else f"Bearer {token}".encode()
        self._router = Router()
        self._plans = Plans()
        self._new_id = RequestIds()
        self._versions: dict[str, tuple[bytes, bytes]] = {}
        self._handlers: dict[str, Handler] = {
            "infer": self._infer,
            "predict": self._predict,
            "predict_stable": self._predict_stable,
            "predict_split": self._predict_split,
            "predict_named": self._predict_named,
            "invocations": self._invocations,
            "feedback": self._feedback,
        }
        self._labels = labels
        self._readers: dict[str, Reader] = metadata.readers(self)

    async def respond(self, request: Request) -> Answer:
        """The answer to one whole request. Raises nothing but cancellation."""
        try:
            match = self._router.match(request.method, request.path)
            headers = request.headers
            route = match.route
            if self._authorization is not None and not route.open:
                self._authorize(headers)
            if b"content-encoding" in headers:
                encoding = headers.pop(b"content-encoding")
                request.body = decompress(request.body, encoding, self.limits)
            handler = self._handlers.get(route.handler)
            if handler is None:
                answer = self._readers[route.handler](request, match)
            else:
                request.id = self._request_id(headers)
                answer = await handler(request, match)
            if len(answer.body) > COMPRESS_FROM and b"accept-encoding" in headers:
                _compress(answer, headers[b"accept-encoding"])
        except Exception as exc:
            answer = self._error(exc, request)
        if self.access_log is not None:
            seconds = time.monotonic() - request.arrived
            self.access_log(request.method, request.path, answer.status, seconds, request.id)
        return answer

    def _error(self, exc: Exception, request: Request) -> Answer:
        lease = request.lease
        headers: Headers = (JSON_TYPE,)
        origin = None
        if lease is not None:
            origin = self._origin(lease)
            headers += (self._version_header(lease.version),)
        request.id = request.id or self._request_id(request.headers)
        status, extra, body = translate(exc, request.id, origin)
        headers += (*extra, (b"x-request-id", request.id.encode("ascii")))
        return Answer(status, headers, body)

    def _origin(self, lease: Lease) -> Origin:
        try:
            entry = self.plane.table(lease.model).version(lease.version)
        except HotswapError:
            entry = None
        return Origin(lease.model, lease.version, entry.digest if entry is not None else "")

    def _authorize(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        given = b"Bearer " + token.strip() if scheme.lower() == b"bearer" else b""
        if not hmac.compare_digest(given, self._authorization or b""):
            raise Unauthorized

    def _request_id(
        self, headers: dict[bytes, bytes], of_body: str = "", fresh: str | None = None
    ) -> str:
        """The header's id, else the body's, else ``fresh`` or a new one.

        An id that cannot be sent back in a header is replaced.
        """
        given = headers.get(b"x-request-id")
        if given is not None:
            if valid_id(given):
                return given.decode("ascii")
        elif of_body and valid_id(of_body.encode("utf-8", "replace")):
            return of_body
        return fresh or self._new_id()

    def _deadline(self, request: Request, timeout: float | None = None) -> float:
        limits = self.limits
        seconds = limits.default_timeout
        value = request.headers.get(b"x-hotswap-timeout-ms")
        if value is not None:
            text = value.strip()
            if not text.isdigit() or len(text) > 15 or int(text) == 0:
                raise BadInput(
                    "x-hotswap-timeout-ms must be a whole number of milliseconds, from 1."
                )
            seconds = int(text) / 1000
        if timeout is not None and (value is None or timeout < seconds):
            seconds = timeout
        return request.arrived + min(seconds, limits.max_timeout)

    def _model(self, headers: dict[bytes, bytes], named: str | None) -> str:
        """The model asked for: by path or body, else by header, else the only one served."""
        header = headers.get(b"x-hotswap-model")
        if header is not None:
            wanted = header.decode("latin-1").strip()
            if named is not None and named != wanted:
                raise BadInput(
                    f"The request names the model {show(named)}, and its x-hotswap-model header "
                    f"{show(wanted)}: name one."
                )
            return wanted
        if named is not None:
            return named
        return self.only_model()

    def only_model(self) -> str:
        """The only model served. Raises `BadInput` naming the choices, `NotFound` if none is."""
        models = self.plane.models()
        if len(models) == 1:
            return models[0]
        if not models:
            raise NotFound("No model is served here yet.")
        raise BadInput(f"Name the model: {', '.join(models[:20])} are served here.")

    def _version_header(self, version: str) -> tuple[bytes, bytes]:
        header = self._versions.get(version)
        if header is None:
            if len(self._versions) >= _CACHED_VERSIONS:
                self._versions.clear()
            header = (b"x-hotswap-version", version.encode("ascii", "replace"))
            self._versions[version] = header
        return header

    def _answer(
        self, body: bytes, lease: Lease, request: Request, kind: tuple[bytes, bytes]
    ) -> Answer:
        request_id = (b"x-request-id", request.id.encode("ascii"))
        headers: Headers = (kind, self._version_header(lease.version), request_id)
        if lease.fallback is not None:
            headers += ((b"x-hotswap-fallback", lease.fallback.encode("ascii", "replace")),)
        return Answer(200, headers, body)

    async def _infer(self, request: Request, match: Match) -> Answer:
        headers = request.headers
        content_type = headers.get(b"content-type", _JSON)
        if content_type != _JSON:
            check_type(content_type, _INFER_TYPES)
        model = self._model(headers, match.model)
        lease = self.plane.lease(model, match.version, headers.get(b"x-hotswap-key"))
        request.lease = lease
        try:
            plan = self._plans.of(lease.signature)
            length_header = headers.get(b"inference-header-content-length")
            call = infer.decode(request.body, length_header, plan, self.limits)
            if call.id:
                request.id = self._request_id(headers, call.id, request.id)
            deadline = self._deadline(request, call.timeout)
            result = await lease.predict(call.inputs, call.outputs, call.rows, deadline, request.id)
            _check_outputs(result, call.outputs, call.rows)
            body, length = infer_answer.encode(call, result, lease.model, lease.version, plan)
            if length is None:
                return self._answer(body, lease, request, JSON_TYPE)
            answer = self._answer(body, lease, request, _OCTETS)
            answer.headers += ((b"inference-header-content-length", b"%d" % length),)
            return answer
        finally:
            lease.release()

    async def _predict(self, request: Request, match: Match) -> Answer:
        return await self._features(request, None, None)

    async def _feedback(self, request: Request, match: Match) -> Answer:
        content_type = request.headers.get(b"content-type", _JSON)
        if content_type != _JSON:
            check_type(content_type, _PREDICT_TYPES)
        if self._labels is None:
            raise NotFound(
                "This server keeps no records that a label could be joined with: start it with "
                "--records on."
            )
        if len(request.body) > feedback.LONG:  # others are answered meanwhile
            labels = await asyncio.to_thread(feedback.parse, request.body, self.limits)
        else:
            labels = feedback.parse(request.body, self.limits)
        for at in range(0, len(labels), feedback.GROUP):
            if at:
                await asyncio.sleep(0)
            if not self._labels(labels[at : at + feedback.GROUP]):
                raise Unavailable("There is no room for labels now: send these again.", 1)
        body = b'{"accepted":%d}' % len(labels)
        return Answer(202, (JSON_TYPE, (b"x-request-id", request.id.encode("ascii"))), body)

    async def _predict_stable(self, request: Request, match: Match) -> Answer:
        return await self._features(request, None, None, arm="stable")

    async def _predict_split(self, request: Request, match: Match) -> Answer:
        return await self._features(request, None, None, split=True)

    async def _predict_named(self, request: Request, match: Match) -> Answer:
        """``{name}``: a model, else an arm of the only running test, else a version of the only model."""
        name = match.name or ""
        models = self.plane.models()
        if name in models:
            return await self._features(request, name, None)
        arm = ARMS.get(name)
        tested = [m for m in models if self.plane.table(m).split is not None] if arm else []
        if len(tested) == 1:
            return await self._features(request, tested[0], None, arm=arm)
        if tested:
            raise BadInput(
                f"{show(name)} is an arm of several running tests: name the model, one of "
                f"{', '.join(tested[:20])}, and its version."
            )
        versions: list[str] = []
        if len(models) == 1:
            versions = [entry.version for entry in self.plane.table(models[0]).versions]
            if name in versions:
                return await self._features(request, models[0], name)
        choices = ", ".join([*models[:20], *versions[:20]]) or "none yet"
        what = "is an arm of no running test, and neither" if arm else "is neither"
        raise NotFound(f"{show(name)} {what} a model nor a version here; there are: {choices}.")

    async def _features(
        self,
        request: Request,
        model: str | None,
        version: str | None,
        *,
        arm: str | None = None,
        split: bool = False,
    ) -> Answer:
        """The simple format.

        ``arm``: a version named in the body must be that arm's. ``split``: there must be a
        running split, and no version may be named.
        """
        headers = request.headers
        content_type = headers.get(b"content-type", _JSON)
        if content_type != _JSON:
            check_type(content_type, _PREDICT_TYPES)
        parsed = predict.parse(request.body, self.limits)
        if parsed.request_id:
            request.id = self._request_id(headers, parsed.request_id, request.id)
        model = self._model(headers, _agree("model", model, parsed.model))
        version = _agree("version", version, parsed.version)
        if split:
            self._check_split(model, version)
        pinned = None if arm is not None else version
        lease = self.plane.lease(model, pinned, headers.get(b"x-hotswap-key"), arm=arm)
        request.lease = lease
        try:
            if arm is not None and version is not None and version != lease.version:
                whose = "stable version" if arm == "stable" else f"{arm}'s version"
                raise BadInput(
                    f"This route answers by the {whose}, {lease.version}: for {show(version)} "
                    "send the request to /predict."
                )
            plan = self._plans.of(lease.signature)
            inputs, rows, alone = predict.decode(parsed, plan, self.limits)
            result = await lease.predict(inputs, (), rows, self._deadline(request), request.id)
            _check_outputs(result, (), rows)
            body = predict.encode(result, alone, lease.model, lease.version, request.id)
            return self._answer(body, lease, request, JSON_TYPE)
        finally:
            lease.release()

    def _check_split(self, model: str, version: str | None) -> None:
        if self.plane.table(model).split is None:
            raise NotFound(
                f"No test of the model {show(model)} is running: start one, or send the request "
                "to /predict."
            )
        if version is not None:
            raise BadInput(
                f"This route answers through the running test: to name the version "
                f"{show(version)}, send the request to /predict."
            )

    async def _invocations(self, request: Request, match: Match) -> Answer:
        headers = request.headers
        media = check_type(headers.get(b"content-type"), invocations.TYPES)
        parsed = invocations.parse(request.body, media, self.limits)
        model = self._model(headers, None)
        lease = self.plane.lease(model, None, headers.get(b"x-hotswap-key"))
        request.lease = lease
        try:
            plan = self._plans.of(lease.signature)
            inputs, rows = invocations.decode(parsed, plan, self.limits)
            result = await lease.predict(inputs, (), rows, self._deadline(request), request.id)
            _check_outputs(result, (), rows)
            return self._answer(invocations.encode(result), lease, request, JSON_TYPE)
        finally:
            lease.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3: HTTP and lifespan; WebSockets are refused."""
        await serve(self, scope, receive, send)

    def refusal(self, exc: Exception, request: Request) -> Answer:
        """The answer to a request that cannot even be read."""
        return self._error(exc, request)


def _agree(what: str, of_path: str | None, of_body: str | None) -> str | None:
    if of_path is not None and of_body is not None and of_path != of_body:
        raise BadInput(
            f"The path names the {what} {show(of_path)}, and the body {show(of_body)}: name one."
        )
    return of_path if of_path is not None else of_body


def _check_outputs(result: dict[str, Array], wanted: tuple[str, ...], rows: int) -> None:
    """Raise `InvalidOutput` unless the outputs can be encoded as what was asked for."""
    for name in wanted:
        if name not in result:
            raise InvalidOutput(f"The model gave no output {show(name)}.")
    if not result:
        raise InvalidOutput("The model gave no output.")
    for name, array in result.items():
        if not array.ndim or len(array) != rows:
            raise InvalidOutput(f"The model's output {show(name)} has not one entry a row.")


def _compress(answer: Answer, accept: bytes) -> None:
    compressed = compress(answer.body, accept)
    if compressed is not None:
        coding, answer.body = compressed
        answer.headers += ((b"content-encoding", coding), (b"vary", b"accept-encoding"))
