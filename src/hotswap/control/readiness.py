"""Whether the node answers what it is to answer: at the start, and after it."""

from __future__ import annotations

import structlog

from hotswap.control.catalogue import Catalogue
from hotswap.control.node import Node
from hotswap.control.routes import Routes
from hotswap.core.preloading import runtimes_of

log = structlog.get_logger("hotswap.control")


class Readiness:
    """``rule``: 'all' where every active version must be able to answer, else one must.

    ``required``: models that the start waits for. ``adopting``: there may come more of them.
    """

    def __init__(self, node: Node, catalogue: Catalogue, routes: Routes, rule: str) -> None:
        self.required: set[str] = set()
        self.started = node.snapshot.started
        self.adopting = False
        self.draining = False
        self._node = node
        self._catalogue = catalogue
        self._routes = routes
        self._rule = rule

    def check(self) -> None:
        """Ready for the first time once every required model is warm."""
        if self.started or self.adopting:
            return
        models = self._catalogue.models.values()
        required = self.required or {model.name for model in models if model.active}
        if required and all(self._routes.is_warm(name) for name in required):
            self.started = True
            self._node.all_warm()
            self.preload()
            log.info("every active version is warm", models=len(required))

    def preload(self) -> None:
        """Runtimes of all registered versions, once serving has begun: a switch then only forks."""
        if self.started:
            versions = (v for each in self._catalogue.versions.values() for v in each.values())
            needed = {name for v in versions for name in runtimes_of(v.record.artifact)}
            self._node.preload(sorted(needed))

    def ready(self, store_error: str) -> tuple[bool, str]:
        """Whether, and why not. ``store_error``: why the store cannot be read, or nothing."""
        if self.draining:
            return False, "the server is stopping"
        if self.started:
            return self._able(store_error)
        if store_error:
            return False, store_error
        cold = sorted(name for name in self.required if not self._routes.is_warm(name))
        if cold:
            reasons = [r for (m, _), r in self._routes.warming.failures.items() if m in cold]
            return False, f"not warm yet: {', '.join(cold)}" + (
                f" ({reasons[0]})" if reasons else ""
            )
        return False, "no model is served yet" if not self.required else "starting"

    def _able(self, store_error: str) -> tuple[bool, str]:
        """After the start: while one active version (or every one) can answer."""
        active = [m.name for m in self._catalogue.models.values() if m.active is not None]
        if not active and store_error:
            return True, ""  # the data plane knows; control cannot say
        cold = [name for name in active if not self._routes.is_warm(name)]
        enough = not cold if self._rule == "all" else len(cold) < len(active)
        return enough, "" if enough else f"cannot answer now: {', '.join(cold) or 'no model'}"
