"""The model registry that is followed: what is read and done, and its webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response

from hotswap.control.interface import Control
from hotswap.core.registry_views import RegistryView
from hotswap.errors import NotFound, Unauthorized
from hotswap.server.admin_replies import Hinted, answers, control_of, reply

router = APIRouter(prefix="/api/v1/registry", tags=["registry"])
Service = Annotated[Control, Depends(control_of)]

SIGNATURE: Final = "x-mlflow-signature"
TIMESTAMP: Final = "x-mlflow-timestamp"
DELIVERY: Final = "x-mlflow-delivery-id"
WINDOW_SECONDS: Final = 300.0
_KEPT: Final = 10_000
_LONGEST_ID: Final = 200


class WebhookDoor:
    """Verifies MLflow's webhooks: ``v1,`` and the base64 HMAC-SHA256 of ``id.timestamp.body``.

    ``wall`` gives Unix time. A signature is good for five minutes, a delivery id once.
    """

    def __init__(self, secret: str, wall: Callable[[], float]) -> None:
        self._secret = secret.encode()
        self._wall = wall
        self._taken: OrderedDict[str, float] = OrderedDict()

    def take(self, signature: str, timestamp: str, delivery: str, body: bytes) -> bool:
        """Whether it is a new one. Raises `Unauthorized` for what was not signed with the secret."""
        refused = Unauthorized(
            "the webhook's signature is not valid: sign it with the secret of the registry's "
            "webhooks, and see that both clocks are right"
        )
        if not signature.isascii() or len(delivery) > _LONGEST_ID:
            raise refused
        signed = f"{delivery}.{timestamp}.".encode() + body
        digest = hmac.new(self._secret, signed, hashlib.sha256).digest()
        wanted = f"v1,{base64.b64encode(digest).decode()}"
        good = False
        for each in signature.split(" ")[:5]:  # several while a secret is rotated
            good |= hmac.compare_digest(each, wanted)
        now = self._wall()
        timely = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12
        if not good or not delivery or not timely or abs(now - int(timestamp)) > WINDOW_SECONDS:
            raise refused
        return self._is_new(delivery, now)

    def _is_new(self, delivery: str, now: float) -> bool:
        while self._taken:
            oldest = next(iter(self._taken))
            if self._taken[oldest] > now and len(self._taken) < _KEPT:
                break
            del self._taken[oldest]
        if delivery in self._taken:
            return False
        self._taken[delivery] = now + 2 * WINDOW_SECONDS  # it may be stamped ahead of our clock
        return True


@router.get("", responses=answers(RegistryView, 404, 503))
async def show_registry(control: Service) -> Response:
    """What is read from the registry, when, and what was done upon it, model by model."""
    return reply(await control.registry())


@router.post(
    "/webhook",
    status_code=202,
    responses=answers(Hinted, 400, 404, 408, 413, 415, status=202),
    openapi_extra={"security": []},
)
async def registry_webhook(request: Request, control: Service) -> Response:
    """Something changed in the registry: it is asked at once. Signed by it; no token is needed."""
    door: WebhookDoor | None = request.app.state.webhook
    if door is None:
        raise NotFound(
            "this server takes no webhooks: start it with a registry and registry_webhook_secret"
        )
    headers = request.headers
    new = door.take(
        headers.get(SIGNATURE, ""),
        headers.get(TIMESTAMP, ""),
        headers.get(DELIVERY, ""),
        await request.body(),
    )
    if new:
        control.registry_hint()
    return reply(Hinted(True, not new), 202)
