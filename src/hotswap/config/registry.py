"""Settings of the model registry that is followed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from hotswap.config.values import (
    Alias,
    Names,
    PositiveSeconds,
    address_without_login,
    printable,
    rollout_file,
)
from hotswap.core.registry_wishes import challenge
from hotswap.errors import BadInput


class RegistrySettings(BaseModel):
    """Settings of the model registry that is followed."""

    registry: Literal["mlflow"] | None = Field(
        None,
        description="Model registry that says which versions serve: `mlflow`. The version with "
        "`registry_stable_alias` (without any alias: in stage Production) is made the active "
        "one, and the version with `registry_candidate_alias` (Staging) is tried in a "
        "champion/challenger rollout. Needs `tracking_uri` and the extra `mlflow`.",
    )
    tracking_uri: Annotated[str, AfterValidator(address_without_login)] | None = Field(
        None,
        description="Address of the MLflow tracking server, such as http://127.0.0.1:5000. "
        "MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN and the like are "
        "read from the environment.",
    )
    registry_models: Names = Field(
        (),
        description="Names of the registered models that are followed. Default: every one in "
        "which a version has `registry_stable_alias`, or is in stage Production.",
    )
    registry_poll_seconds: Annotated[PositiveSeconds, Field(le=86400)] = Field(
        30.0,
        description="How often the registry is asked, give or take a tenth.",
    )
    registry_stable_alias: Alias = Field(
        "champion", description="Alias of the version that is to be the active one."
    )
    registry_candidate_alias: Alias = Field(
        "challenger", description="Alias of the version that is to be tried beside it."
    )
    registry_percentage: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] = Field(
        10.0,
        description="Percentage of the requests that the candidate of the registry answers; both "
        "versions see all of them.",
    )
    registry_rollout: Annotated[dict[str, Any], BeforeValidator(rollout_file)] | None = Field(
        None,
        description="YAML or JSON file with more of the rollouts that the registry's candidates "
        "are tried in: `config`, `guardrails`, `objectives`, durations and so on, as in the body of "
        "`POST /api/v1/rollouts`. In the configuration file, the keys themselves.",
    )
    registry_write: bool = Field(
        False,
        description="Tell the registry what was decided: a promotion moves "
        "`registry_stable_alias`, and the version gets the tags hotswap.verdict, hotswap.rollout "
        "and hotswap.report.",
    )
    registry_webhook_secret: Annotated[SecretStr, AfterValidator(printable)] | None = Field(
        None,
        description="Secret of the registry's webhooks. With it, POST /api/v1/registry/webhook "
        "takes them, signed, and asks the registry at once. Better given as "
        "HOTSWAP_REGISTRY_WEBHOOK_SECRET than as a flag.",
    )

    def _refuse_half_registry(self) -> None:
        if self.registry is None:
            if self.tracking_uri is not None:
                raise ValueError("tracking_uri is given, and no registry: add --registry mlflow")
            for name, field in type(self).model_fields.items():
                if name.startswith("registry_") and getattr(self, name) != field.default:
                    raise ValueError(f"{name} is given, and no registry: add --registry mlflow")
            return
        if self.tracking_uri is None:
            raise ValueError(
                "registry is given, and no tracking_uri: say where it is with --tracking-uri"
            )
        if self.registry_stable_alias == self.registry_candidate_alias:
            raise ValueError(
                f"registry_stable_alias and registry_candidate_alias are both "
                f"{self.registry_stable_alias!r}: a version is the one or the other"
            )
        try:
            challenge("model", "1", self.registry_percentage, self.registry_rollout)
        except BadInput as error:
            raise ValueError(f"registry_rollout cannot be used: {error.message}") from None

    def webhook_secret(self) -> str | None:
        """The registry's webhooks' secret in clear, or None."""
        secret = self.registry_webhook_secret
        return None if secret is None else secret.get_secret_value()


__all__ = ["RegistrySettings"]
