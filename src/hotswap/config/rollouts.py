"""Settings of rollouts that say nothing else, and of the metrics they read elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from hotswap.config.values import PositiveSeconds, Seconds, printable, web_address
from hotswap.core.strategy import RolloutDefaults


class RolloutSettings(BaseModel):
    """Settings of rollouts that say nothing else, and of the metrics they read elsewhere."""

    rollout_alpha: Annotated[float, Field(ge=1e-6, le=0.5)] = Field(
        0.05,
        description="Rollouts that say nothing else: how likely, at most, a version that is no "
        "worse is rolled back, and one that is beyond its margin promoted.",
    )
    rollout_on_running: Literal["refuse", "replace", "queue"] = Field(
        "refuse",
        description="Rollouts that say nothing else: what becomes of one that is started beside a "
        "running one of the same model.",
    )
    rollout_on_insufficient: Literal["hold", "extend", "rollback"] = Field(
        "hold",
        description="Rollouts that say nothing else: what happens when a step has not seen enough "
        "by its deadline.",
    )
    rollout_bake_seconds: Seconds = Field(
        600.0,
        description="Rollouts that say nothing else: how long the previous version stays warm "
        "after a promotion, which any alarm takes back at once.",
    )
    rollout_watch_seconds: Seconds = Field(
        3600.0,
        description="Rollouts that say nothing else: how long the new version is watched for "
        "rising errors after that.",
    )
    rollout_deadline_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        86400.0,
        description="Rollouts that say nothing else: how long a step waits for evidence.",
    )
    rollout_budget_ms: Annotated[float, Field(ge=1, le=300_000)] | None = Field(
        None,
        description="Rollouts that say nothing else: how long the candidate may take before "
        "stable answers for it. Without it: ten times stable's p99, from 100 ms to 5 s.",
    )
    prometheus_url: Annotated[str, AfterValidator(web_address)] | None = Field(
        None,
        repr=False,
        description="Address of the Prometheus, or of what answers its HTTP API, that guardrails "
        "with a `query` are read from, such as http://127.0.0.1:9090. A user and password in it "
        "are sent as basic authentication.",
    )
    prometheus_token: Annotated[SecretStr, AfterValidator(printable)] | None = Field(
        None,
        description="Secret that is sent to `prometheus_url` as 'Authorization: Bearer TOKEN'. "
        "Better given as HOTSWAP_PROMETHEUS_TOKEN than as a flag, which other users of the "
        "machine can read.",
    )
    prometheus_timeout_seconds: Annotated[PositiveSeconds, Field(le=60)] = Field(
        5.0,
        description="Most time that one reading may take; one that takes longer is an outage, "
        "which holds the rollouts that need it.",
    )
    label_maturity_seconds: Seconds = Field(
        86400.0,
        description="Rollouts that say nothing else: how long after a request its label may "
        "arrive and still decide. Nothing of a request is counted before that time is over.",
    )

    def rollout_defaults(self) -> RolloutDefaults:
        """What rollouts do where they say nothing."""
        names = RolloutDefaults.__struct_fields__
        return RolloutDefaults(
            **{
                name: getattr(self, name if name in type(self).model_fields else f"rollout_{name}")
                for name in names
            }
        )

    def prometheus_secret(self) -> str | None:
        """Prometheus' token in clear, or None."""
        token = self.prometheus_token
        return None if token is None else token.get_secret_value()


__all__ = ["RolloutSettings"]
