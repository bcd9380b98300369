"""Settings of how much one request, or one client, may ask for."""

from __future__ import annotations

from pydantic import BaseModel, Field

from hotswap.config.values import Count, PositiveSeconds
from hotswap.core.spec import Limits

LIMIT = "limit_"
_DEFAULTS = Limits()


class LimitSettings(BaseModel):
    """Settings of how much one request, or one client, may ask for."""

    limit_body_bytes: Count = Field(
        _DEFAULTS.body_bytes, description="Largest request body, in bytes."
    )
    limit_decompressed_bytes: Count = Field(
        _DEFAULTS.decompressed_bytes,
        description="Largest body after decompression, in bytes.",
    )
    limit_decompressed_ratio: Count = Field(
        _DEFAULTS.decompressed_ratio,
        description="Most times that a compressed body may grow when it is decompressed.",
    )
    limit_json_bytes: Count = Field(
        _DEFAULTS.json_bytes,
        description="Largest JSON or CSV in a request, in bytes after decompression; raw tensors "
        "do not count.",
    )
    limit_json_depth: Count = Field(_DEFAULTS.json_depth, description="Deepest nesting of JSON.")
    limit_header_bytes: Count = Field(
        _DEFAULTS.header_bytes, description="Most bytes in a request's headers together."
    )
    limit_header_count: Count = Field(
        _DEFAULTS.header_count, description="Most headers in a request."
    )
    limit_rows: Count = Field(_DEFAULTS.rows, description="Most rows in a request.")
    limit_queue_rows: Count = Field(
        _DEFAULTS.queue_rows,
        description="Most rows that may wait for one version's instance, over all workers; more "
        "are refused with 429 or 503 and Retry-After.",
    )
    limit_connections: Count = Field(
        _DEFAULTS.connections, description="Most open connections for each worker."
    )
    limit_default_timeout: PositiveSeconds = Field(
        _DEFAULTS.default_timeout,
        description="Seconds a request may take when it does not say (x-hotswap-timeout-ms).",
    )
    limit_max_timeout: PositiveSeconds = Field(
        _DEFAULTS.max_timeout, description="Most seconds that a request may ask for."
    )
    limit_receive_timeout: PositiveSeconds = Field(
        _DEFAULTS.receive_timeout,
        description="Most seconds until a request's headers and body have arrived in full.",
    )
    limit_keepalive_timeout: PositiveSeconds = Field(
        _DEFAULTS.keepalive_timeout,
        description="Seconds after which an idle connection is closed.",
    )

    def limits(self) -> Limits:
        """What a data-plane worker accepts."""
        return Limits(**{name: getattr(self, LIMIT + name) for name in Limits.__struct_fields__})


__all__ = ["LIMIT", "LimitSettings"]
