"""All settings together, and where they come from."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hotswap.config.limits import LIMIT, LimitSettings
from hotswap.config.records import RecordsSettings
from hotswap.config.registry import RegistrySettings
from hotswap.config.rollouts import RolloutSettings
from hotswap.config.serving import ServingSettings
from hotswap.config.values import is_loopback
from hotswap.config.yaml_file import read_mapping
from hotswap.core.spec import Limits
from hotswap.errors import ConfigError

PREFIX = "HOTSWAP_"

# Variables of the command line's client side; they are not settings of a server.
_CLIENT_VARIABLES = ("URL", "DATA_URL")


class _YamlSource(PydanticBaseSettingsSource):
    """The file that ``--config`` or ``HOTSWAP_CONFIG`` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # `__call__` answers for all fields at once

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        return {} if path is None else read_yaml(Path(path).expanduser())


# The order of the bases, from the last to the first, is the order in which settings are listed.
class Settings(
    LimitSettings, RegistrySettings, RecordsSettings, RolloutSettings, ServingSettings, BaseSettings
):
    """Everything a server can be told. Raises `ConfigError`, in one sentence, for bad values."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    def __init__(self, **values: Any) -> None:
        """``values`` are the flags that were given; None means not given."""
        given = {name: value for name, value in values.items() if value is not None}
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigError(_sentence(error, given)) from None
        _refuse_misspelt(os.environ)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then YAML; no .env file is looked for."""
        return init_settings, env_settings, _YamlSource(settings_cls)

    @model_validator(mode="after")
    def _refuse_combinations(self) -> Self:
        exposed = [host for host in (self.host, self.control_host) if not is_loopback(host)]
        if exposed and self.token is None and not self.insecure:
            raise ValueError(
                f"other machines can reach {exposed[0]} and there is no token: set "
                "HOTSWAP_TOKEN, bind to 127.0.0.1, or allow it with --insecure"
            )
        if self.port and (self.host, self.port) == (self.control_host, self.control_port):
            raise ValueError(
                f"port and control_port are both {self.port}: predictions and control need two"
            )
        if self.limit_default_timeout > self.limit_max_timeout:
            raise ValueError(
                f"limit_default_timeout ({self.limit_default_timeout:g} s) is above "
                f"limit_max_timeout ({self.limit_max_timeout:g} s)"
            )
        if self.prometheus_token is not None and self.prometheus_url is None:
            raise ValueError("prometheus_token is given, and no prometheus_url to send it to")
        if self.prometheus_token is not None and urlsplit(self.prometheus_url).username:
            raise ValueError(
                "prometheus_token and a user in prometheus_url are two ways to log in: give one"
            )
        self._refuse_records()
        self._refuse_half_registry()
        return self

    def to_json(self) -> str:
        """Every value, tokens in clear: only for a private pipe to a child process."""
        plain = self.model_dump(mode="json")
        secrets = {
            "token": self.secret(),
            "prometheus_token": self.prometheus_secret(),
            "registry_webhook_secret": self.webhook_secret(),
        }
        return json.dumps(plain | secrets)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` wrote; reads neither environment nor file."""
        settings = cls.model_construct()
        cls.__pydantic_validator__.validate_python(json.loads(text), self_instance=settings)
        return settings


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises `ConfigError` for what it cannot mean."""
    content = read_mapping(path, "the configuration file")
    limits = content.pop("limits", None) or {}
    if not isinstance(limits, dict):
        raise ConfigError(f"'limits' in {path} must hold limits, as 'name: value'")
    allowed = [name for name in Settings.model_fields if name != "config"]
    _refuse_unknown(content, allowed, str(path))
    _refuse_unknown(limits, Limits.__struct_fields__, f"the section 'limits' of {path}")
    both = [name for name in limits if LIMIT + name in content]
    if both:
        raise ConfigError(f"{path} gives {LIMIT}{both[0]} twice: also as limits.{both[0]}")
    return content | {LIMIT + name: value for name, value in limits.items()}


def _refuse_unknown(content: dict[Any, Any], allowed: Iterable[str], where: str) -> None:
    names = list(allowed)
    for key in content:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
            raise ConfigError(f"{key!r} in {where} is not a setting; the nearest is {near[0]!r}")


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Refuse variables that are nearly a setting's.

    Only near ones: Kubernetes gives the pods of a Service named hotswap variables such as
    HOTSWAP_SERVICE_HOST, and users have their own.
    """
    known = [*(name.upper() for name in Settings.model_fields), *_CLIENT_VARIABLES]
    for variable in environ:
        name = variable.removeprefix(PREFIX)
        if name == variable or name in known or name.startswith(("SERVICE_", "PORT_")):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            raise ConfigError(f"{variable} is not a setting; did you mean {PREFIX}{near[0]}?")


def _sentence(error: ValidationError, flags: dict[str, Any]) -> str:
    """The first thing wrong, with the place where it was set."""
    first = error.errors(include_url=False, include_input=False)[0]
    reason = _reason(first)
    if not first["loc"]:
        return reason
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(Settings.model_fields), n=1, cutoff=0.0)
        return f"{name!r} is not a setting; the nearest is {near[0]!r}"
    variable = PREFIX + name.upper()
    if name in flags:
        place = "--" + name.replace("_", "-")
    elif os.environ.get(variable):
        place = f"the variable {variable}"
        if os.environ[variable].startswith("tcp://"):
            reason += (
                " (Kubernetes sets this variable for a Service named hotswap: rename the "
                "Service, or set 'enableServiceLinks: false' in the pod)"
            )
    else:
        place = f"{name!r} in the configuration file"
    return f"{place}: {reason}"


def _reason(details: ErrorDetails) -> str:
    text = details["msg"].removeprefix("Value error, ")
    return text.replace("Input should be", "must be").replace("input should be", "must be")


__all__ = ["PREFIX", "Settings"]
