"""`Engine`: models served and switched inside a user's own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hotswap.app.clock import SystemClock
from hotswap.app.engine_app import EngineApp
from hotswap.app.engine_control import ControlThread
from hotswap.app.engine_prediction import Prediction, to_inputs
from hotswap.app.engine_registry import ModelRegistry
from hotswap.app.engine_service import EngineService
from hotswap.app.engine_switches import Switches, SwitchingStrategyType
from hotswap.app.engine_wiring import EngineSettings, wire
from hotswap.core.spec import Limits
from hotswap.errors import BadInput, Conflict, NotFound, Unavailable
from hotswap.server.plans import Plans
from hotswap.serving.inline import InlinePlane


class Engine(Switches):
    """Serves models in this process and switches between their versions without failing a request.

    ``models`` is a folder ``models/<model>/<version>/<artifact>``; at the first start each
    model's highest version becomes active, later what was active last (with ``state_dir``). New
    versions in it are registered while the engine runs, and not activated. Without a folder,
    versions come from ``registry.register_model`` alone.

    ``trust_code`` allows artifacts that can run code when loaded (pickle, joblib, model.py …),
    ``trust_digests`` single ones. ``state_dir`` keeps artifacts and what is active across
    restarts; without it both are gone at the stop. ``keep_warm_seconds``: how long the previous
    version stays loaded after a switch. ``load_seconds``: most time that a load may take.
    ``allow_unvalidated``: accept versions that cannot be tried out. ``poll_seconds`` and
    ``settle_seconds``: how often the folder is looked at, and how long a new version's files
    must be unchanged. ``grace_seconds``: how long a stop waits for requests in flight.
    Times in seconds. Raises `ConfigError` for settings out of range.

    A model that answers a row in under a millisecond runs on the event loop, any other on a
    thread of its own. A stable model that crashes takes this process with it, and a call that
    hangs cannot be stopped: run ``hotswap serve`` where that matters.

    ``isolation``: where a rollout's candidate runs until it has been stable once. ``"process"``
    (the default where the platform can): in a process of its own, so that a crash, an exit, a
    leak or a hang costs nothing but the candidate. It stays there when it is promoted, one hop
    (some 0.2 ms) away, until `bring_in` or the engine's next start. What its artifact needs
    must be importable there; a class of ``__main__`` is not. ``"thread"``: within
    this process. Whatever it raises and whatever invalid answer it gives is still replaced, and
    so is an answer that is late; but a crash or an exit ends the program, a hang keeps its
    thread until the program ends (and everything, if it holds the interpreter's lock), and what
    it leaks stays. Raises `ConfigError` where processes are not possible.

    >>> import asyncio, tempfile
    >>> async def main() -> str:
    ...     with tempfile.TemporaryDirectory() as folder:
    ...         model = Path(folder, "double", "v1")
    ...         model.mkdir(parents=True)
    ...         source = "class Model:\\n    def predict(self, X):\\n        return X[:, 0] * 2\\n"
    ...         _ = (model / "model.py").write_text(source)
    ...         _ = (model / "version.yaml").write_text("samples: [[1.0], [2.0]]")
    ...         async with Engine(folder, trust_code=True, settle_seconds=0) as engine:
    ...             answer = await engine.predict("double", [[21.0]])
    ...             return f"{answer.values[0]} by {answer.version}"
    >>> asyncio.run(main())
    '42.0 by v1'
    """

    def __init__(
        self,
        models: str | os.PathLike[str] | None = None,
        *,
        trust_code: bool = False,
        trust_digests: Sequence[str] = (),
        allow_unvalidated: bool = False,
        state_dir: str | os.PathLike[str] | None = None,
        keep_warm_seconds: float = 600.0,
        load_seconds: float = 120.0,
        memory_budget_mb: int | None = None,
        poll_seconds: float = 2.0,
        settle_seconds: float = 1.0,
        grace_seconds: float = 30.0,
        isolation: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._settings = EngineSettings(
            models=Path(models).expanduser().absolute() if models is not None else None,
            trust_code=trust_code,
            trust_digests=tuple(trust_digests),
            allow_unvalidated=allow_unvalidated,
            state_dir=Path(state_dir).expanduser().absolute() if state_dir is not None else None,
            keep_warm_seconds=keep_warm_seconds,
            load_seconds=load_seconds,
            memory_budget_mb=memory_budget_mb,
            poll_seconds=poll_seconds,
            settle_seconds=settle_seconds,
            grace_seconds=grace_seconds,
            isolation=isolation,
        )
        self._settings.check()
        self._limits = limits or Limits()
        self._clock = SystemClock()
        self._plane = InlinePlane(
            on_drained=self._drained,
            on_wanted=self._wanted,
            wall_ms=lambda: int(self._clock.wall() * 1000),
        )
        self._plans = Plans()
        self._control: ControlThread | None = None
        self._phase = "new"
        self._starting = threading.Lock()
        self._held = contextlib.ExitStack()
        self.registry = ModelRegistry(self._started)

    # --- start and stop

    async def start(self) -> Self:
        """Load and validate the active version of every model; returns when they can answer.

        A model whose version cannot be loaded does not keep the others from starting: its
        requests raise `Unavailable` with the reason, which `registry.list_models` shows too.

        Raises `ConfigError` (an unreadable folder, a state directory in use), `StoreError`, and
        `Conflict` if it is started already.
        """
        with self._starting:
            if self._phase not in ("new", "stopped"):
                raise Conflict(f"the engine is {self._phase} already")
            self._phase = "starting"
        try:
            control = self._control = await asyncio.to_thread(
                wire, self._settings, self._limits, self._plane, self._clock, self._held
            )
            await control.call(control.open(control.source))
        except BaseException:
            self._phase = "started"  # so that stop() undoes what was done
            await self.stop()
            raise
        self._plane.started = True
        self._plane.refusal = ""
        self._phase = "started"
        return self

    async def stop(self) -> None:
        """Refuse new requests, finish those in flight, unload everything. May be called again."""
        with self._starting:
            if self._phase != "started":
                return
            self._phase = "stopping"
        self._plane.refusal = "it is stopping"
        try:
            await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(self._unwire)))
        finally:
            self._plane.refusal = "it is stopped"
            self._phase = "stopped"

    def _unwire(self) -> None:
        self._plane.wait_idle(self._settings.grace_seconds)
        control, self._control = self._control, None
        if control is not None:
            control.end()
        self._plane.clear()
        self._held.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        """Whether it is started and not stopping."""
        return self._phase == "started"

    def _started(self) -> tuple[ControlThread, EngineService]:
        control = self._control
        if self._phase != "started" or control is None or control.service is None:
            state = "not started" if self._phase == "new" else self._phase
            raise Unavailable(
                f"the engine is {state}: use it within 'async with Engine(...)', or after "
                "'await engine.start()'"
            )
        return control, control.service

    def _drained(self, index: int, revision: int) -> None:
        from hotswap.ipc.messages import Drained

        self._tell(Drained(index, revision))

    def _wanted(self, model: str, version: str) -> None:
        from hotswap.ipc.messages import Wanted

        self._tell(Wanted(model, version))

    def _tell(self, message: object) -> None:
        """From whatever thread, to control's."""
        control = self._control
        if control is not None and control.node is not None and control.hosts is not None:
            node = control.node
            control.hosts.tell(lambda: node.heard(message))

    # --- predictions

    async def predict(
        self,
        model: str | None,
        X: Any,
        *,
        version: str | None = None,
        key: str | bytes | None = None,
        arm: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Prediction:
        """The answer of one version to some rows.

        ``X``: an array of rows or of one row, lists, a dict of names to values or to columns, a
        list of dicts, or a pandas data frame. ``model`` may be None where only one is served.
        ``version`` asks that version, active or not, and loads it if it must. ``key`` is what
        keeps a caller on one side of a rollout. ``arm``: ``"stable"`` asks the stable version
        whatever rollout runs, ``"baseline"`` or ``"candidate"`` that side of it; neither is
        counted as evidence. ``timeout`` in seconds (default 30, at most 300, both by ``limits``).

        While a rollout runs, a candidate that fails is answered for by the stable version, and
        the answer's ``fallback`` says why.

        Raises `NotFound`, `BadInput`, `TooLarge`, `Unavailable`, `Overloaded`,
        `DeadlineExceeded`, `OutOfMemory`, and `ModelFailed`, whose ``__cause__`` is what the
        model raised.
        """
        self._started()
        limits = self._limits
        seconds = limits.default_timeout if timeout is None else timeout
        if not seconds > 0:
            raise BadInput(f"the timeout must be a positive number of seconds, not {timeout}")
        deadline = time.monotonic() + min(seconds, limits.max_timeout)
        if arm not in (None, "stable", "baseline", "candidate"):
            raise BadInput(f"arm must be 'stable', 'baseline' or 'candidate', not {arm!r}")
        name = model if model is not None else self._only()
        raw = key.encode() if isinstance(key, str) else key
        try:
            lease = self._plane.lease(name, version, raw, arm=arm)
        except Unavailable:
            if version is None:
                raise
            await self._load(name, version, deadline)
            lease = self._plane.lease(name, version, raw)
        try:
            inputs, rows = to_inputs(X, self._plans.of(lease.signature), limits)
            id = request_id or secrets.token_hex(8)
            outputs = await lease.predict(inputs, (), rows, deadline, id)
            return Prediction(outputs, lease.model, lease.version, id, lease.fallback)
        finally:
            lease.release()

    async def _load(self, model: str, version: str, deadline: float) -> None:
        control, service = self._started()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await control.call(service.load(model, version))
        except TimeoutError:
            raise Unavailable(
                f"version {version!r} of model {model!r} is being loaded; try again"
            ) from None

    def _only(self) -> str:
        names = self._plane.models()
        if len(names) == 1:
            return names[0]
        if not names:
            raise NotFound("no model is registered yet")
        raise BadInput(f"name the model: {', '.join(names[:20])} are served")

    # --- HTTP

    def asgi(self, *, token: str | None = None) -> EngineApp:
        """The data plane's HTTP routes as an ASGI application, to run or to mount.

        Run by itself, it starts and stops an engine that is not started. Mounted in another
        application, which tells it of no lifespan, it answers 503 until the engine is started.
        ``token``: what requests must carry as ``Authorization: Bearer``.

        ``app.mount("/models", engine.asgi())`` in FastAPI serves ``POST /models/predict`` and
        ``POST /models/v2/models/{name}/infer``.
        """
        return EngineApp(self, self._plane, self._limits, token=token)


__all__ = ["Engine", "SwitchingStrategyType"]
