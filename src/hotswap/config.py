"""The server's settings: flags, then the environment, then a YAML file.

A flag ``--state-dir`` is the variable ``HOTSWAP_STATE_DIR`` and the YAML key ``state_dir``;
limits may also stand in a YAML section ``limits`` without their prefix. This module is the only
one that reads the process's environment.

>>> Settings(port=9000).port
9000
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hotswap.core.drift_views import DriftSettings
from hotswap.core.registry_wishes import challenge
from hotswap.core.spec import Limits
from hotswap.core.strategy import RolloutDefaults
from hotswap.core.uris import check_prefix
from hotswap.errors import BadInput, ConfigError

PREFIX = "HOTSWAP_"
LIMIT = "limit_"
_DEFAULTS = Limits()

# Variables of the command line's client side; they are not settings of a server.
_CLIENT_VARIABLES = ("URL", "DATA_URL")


def default_workers() -> int:
    """Half the processors this process may use, at least 1 and at most 4.

    Half, because the hosts that compute need the rest; at most 4, because four front ends
    already parse more requests than most models can answer.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(4, processors // 2))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _absolute(path: Path) -> Path:
    # Absolute at once: the server's processes need not share a working directory.
    return path.expanduser().absolute()


def _items(value: object) -> object:
    """Commas separate the items of a list that is given as one string."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return [value] if isinstance(value, Path) else value


def _host(value: str) -> str:
    if not value or any(c.isspace() or c in "/?#@" for c in value):
        raise ValueError("must be a host name or an address such as 127.0.0.1")
    return value


def _store(value: str) -> str:
    if value not in ("sqlite", "memory"):
        raise ValueError(f"{value!r} is not a store that exists here: use 'sqlite' or 'memory'")
    return value


def _host_start(value: str) -> str:
    if value == "fork" and sys.platform != "linux":
        raise ValueError(
            "'fork' needs Linux: elsewhere a process that has imported numeric libraries cannot "
            "be forked safely; use 'spawn' or 'auto'"
        )
    return value


def _digest(value: str) -> str:
    kind, _, digits = value.partition(":")
    if kind != "sha256" or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError(
            f"{value!r} is not a digest: give 'sha256:' and 64 lower-case hexadecimal digits, "
            "as 'hotswap models show' prints it"
        )
    return value


def _place(value: str) -> str:
    """Any fsspec location whose library is there, or a folder."""
    if "://" not in value:
        if not Path(value).is_absolute():
            raise ValueError("must be an address such as s3://bucket/prefix, or an absolute path")
        return value
    import fsspec

    protocol, _, rest = value.partition("://")
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        raise ValueError(f"{protocol!r} is no protocol that fsspec knows") from None
    except ImportError as error:
        raise ValueError(f"{protocol!r} needs a library that is not installed: {error}") from None
    if not rest:
        raise ValueError(f"says no place behind {protocol}://")
    return value


def _token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not all("!" <= c <= "~" for c in text):
        raise ValueError("must be one or more printable ASCII characters without spaces")
    return value


def _web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "?" in value or "#" in value or not all("!" <= c <= "~" for c in value):
        raise ValueError("must be an address such as http://127.0.0.1:9090, without a query")
    return value


def _prefix(value: str) -> str:
    try:
        return check_prefix(value)
    except BadInput as error:  # pydantic gathers ValueErrors
        raise ValueError(error.message) from None


def _alias(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", value):
        raise ValueError("must be an alias as MLflow has them: letters, digits, - and _")
    return value


def _rollout_file(value: object) -> object:
    """A path stands for what the file holds, so that a later edit of it changes nothing."""
    if not isinstance(value, str | Path):
        return value
    try:
        return _read_mapping(Path(value).expanduser(), "the file of a rollout")
    except ConfigError as error:
        raise ValueError(error.message) from None


def _plain_address(value: str) -> str:
    if urlsplit(_web_address(value)).username is not None:
        raise ValueError(
            "must hold no user or password: give them as MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment"
        )
    return value.rstrip("/")


Folder = Annotated[Path, AfterValidator(_absolute)]
Folders = Annotated[tuple[Folder, ...], BeforeValidator(_items)]
Names = Annotated[tuple[str, ...], BeforeValidator(_items)]
Prefixes = Annotated[tuple[Annotated[str, AfterValidator(_prefix)], ...], BeforeValidator(_items)]
Alias = Annotated[str, AfterValidator(_alias)]
Digests = Annotated[tuple[Annotated[str, AfterValidator(_digest)], ...], BeforeValidator(_items)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _YamlSource(PydanticBaseSettingsSource):
    """The file that ``--config`` or ``HOTSWAP_CONFIG`` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # `__call__` answers for all fields at once

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        return {} if path is None else read_yaml(Path(path).expanduser())


class Settings(BaseSettings):
    """Everything a server can be told. Raises `ConfigError`, in one sentence, for bad values."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    models: Folder | None = Field(
        None,
        description="Folder that holds the models, as MODELS/<model>/<version>/<artifact>. It is "
        "watched: new versions are registered, not activated. Without it, versions are "
        "registered through the API alone.",
    )
    config: Folder | None = Field(
        None,
        description="YAML file with any of these settings, by their names. Flags and environment "
        "variables win over it.",
    )
    host: Host = Field(
        "127.0.0.1",
        description="Address that predictions are served on. Anything but a loopback address "
        "needs `token` or `insecure`.",
    )
    port: Port = Field(
        8080, description="TCP port that predictions are served on; 0 takes a free one."
    )
    control_host: Host = Field(
        "127.0.0.1",
        description="Address of the control API, the status page and the metrics. Anything but a "
        "loopback address needs `token` or `insecure`.",
    )
    control_port: Port = Field(8081, description="TCP port of the control API; 0 takes a free one.")
    workers: Count = Field(
        default_factory=default_workers,
        description="HTTP front-end processes. They hold no model. Default: half the processors, "
        "at least 1 and at most 4.",
    )
    state_dir: Folder = Field(
        Path(".hotswap"),
        validate_default=True,
        description="Folder for what must outlive the server: the store, copies of artifacts, "
        "and the lock that lets one server use it.",
    )
    store: Annotated[str, AfterValidator(_store)] = Field(
        "sqlite",
        description="Where the server keeps its state: `sqlite`, a database in the state "
        "directory, or `memory`, which forgets everything when the server stops.",
    )
    trust_code: bool = Field(
        False,
        description="Allow every artifact of a format that can run code when it is loaded: "
        "pickle, joblib, TorchScript, model.py and the like. Whoever can write such an artifact "
        "can then run code as this server.",
    )
    trust_digests: Digests = Field(
        (),
        description="Digests (sha256:…) of single artifacts that may run code when they are "
        "loaded; narrower than `trust_code`.",
    )
    token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        None,
        description="Secret that requests must carry as 'Authorization: Bearer TOKEN'; health "
        "routes stay open. Better given as HOTSWAP_TOKEN than as a flag, which other users of "
        "the machine can read.",
    )
    insecure: bool = Field(
        False,
        description="Allow an address that other machines can reach although there is no token. "
        "Anyone who reaches it may then switch and remove models.",
    )
    allowed_hosts: Names = Field(
        (),
        description="Host names, beside the addresses served on, that requests to the control "
        "API may carry in their Host header. A request for any other is refused with 421.",
    )
    allow_root: Folders = Field(
        (),
        description="Folders, beside the models folder, that versions may be registered from.",
    )
    allow_uri: Prefixes = Field(
        (),
        description="Where versions may be fetched from, as prefixes such as s3://models/ or "
        "gs://models/fraud. What lies elsewhere is refused. Needs the extra `s3` or `gcs`.",
    )
    fetch_mb: Count = Field(
        65536, description="Most MiB that a version fetched from elsewhere may have."
    )
    fetch_files: Count = Field(
        10_000, description="Most files that a version fetched from elsewhere may have."
    )
    fetch_seconds: PositiveSeconds = Field(
        1800.0, description="Most time that fetching a version from elsewhere may take."
    )
    allow_unvalidated: bool = Field(
        False,
        description="Serve versions whose inputs neither the artifact nor version.yaml nor "
        "samples tell, and which therefore could not be tried before they were called ready.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log lines that are written."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="How log lines look: `json`, `console` for people, or `auto`: console on a "
        "terminal, else JSON.",
    )
    access_log: bool = Field(False, description="Write one structured log line for each request.")
    host_start: Annotated[Literal["auto", "fork", "spawn"], AfterValidator(_host_start)] = Field(
        "auto",
        description="How the process of a version is started: `fork`, from a process that has "
        "imported its libraries already (Linux only); `spawn`, anew, which takes longer and "
        "shares no memory; `auto`: fork on Linux, else spawn.",
    )
    readiness: Literal["stable", "all"] = Field(
        "stable",
        description="When a started server says it is ready: `stable` while at least one "
        "model's active version can answer, `all` while every model's can.",
    )
    keep_warm_seconds: Seconds = Field(
        600.0,
        description="How long the previous version stays loaded after a switch, so that rolling "
        "back needs no load.",
    )
    memory_budget_mb: Count | None = Field(
        None,
        description="Memory (MiB) that the loaded versions may take together; versions without "
        "traffic are unloaded to keep it. Default: 80 % of the machine's or container's.",
    )
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
    prometheus_url: Annotated[str, AfterValidator(_web_address)] | None = Field(
        None,
        repr=False,
        description="Address of the Prometheus, or of what answers its HTTP API, that guardrails "
        "with a `query` are read from, such as http://127.0.0.1:9090. A user and password in it "
        "are sent as basic authentication.",
    )
    prometheus_token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
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
    registry: Literal["mlflow"] | None = Field(
        None,
        description="Model registry that says which versions serve: `mlflow`. The version with "
        "`registry_stable_alias` (without any alias: in stage Production) is made the active "
        "one, and the version with `registry_candidate_alias` (Staging) is tried in a "
        "champion/challenger rollout. Needs `tracking_uri` and the extra `mlflow`.",
    )
    tracking_uri: Annotated[str, AfterValidator(_plain_address)] | None = Field(
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
    registry_rollout: Annotated[dict[str, Any], BeforeValidator(_rollout_file)] | None = Field(
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
    registry_webhook_secret: Annotated[SecretStr, AfterValidator(_token)] | None = Field(
        None,
        description="Secret of the registry's webhooks. With it, POST /api/v1/registry/webhook "
        "takes them, signed, and asks the registry at once. Better given as "
        "HOTSWAP_REGISTRY_WEBHOOK_SECRET than as a flag.",
    )
    records: Literal["on", "off"] = Field(
        "on",
        description="Keep what was predicted, in the state directory: for reports, labels, drift "
        "and replays. `off` keeps nothing, and takes no labels.",
    )
    records_share: Share = Field(
        1.0, description="Share of the answered requests that are recorded, 0 to 1, at random."
    )
    records_inputs: Names = Field(
        ("all",),
        description="Inputs that are recorded: `all`, `none`, or the names of columns.",
    )
    records_input_share: Share = Field(
        1.0, description="Share of the recorded requests that are recorded with their inputs."
    )
    records_redact: Names = Field((), description="Inputs that are never recorded.")
    records_hash: Names = Field(
        (),
        description="Inputs of which only a keyed hash is recorded: equal values can be told, none "
        "can be read.",
    )
    records_days: Annotated[PositiveSeconds, Field(le=36500)] = Field(
        30.0, description="Days that records and labels are kept."
    )
    records_mb: Count = Field(
        2048,
        description="Most MiB that compacted records and labels may take together; the oldest go "
        "first.",
    )
    records_url: Annotated[str, AfterValidator(_place)] | None = Field(
        None,
        repr=False,
        description="Where compacted records and labels are kept, as fsspec names it, such as "
        "s3://bucket/prefix. Default: in the state directory.",
    )
    drift_seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = Field(
        300.0,
        description="How often new records are held against the drift reference; 0 watches for no "
        "drift.",
    )
    drift_tolerance: Annotated[float, Field(ge=0.001, le=0.9)] = Field(
        0.1,
        description="How far a share of an input's or an output's values may be from the "
        "reference's without being called drift, 0.001 to 0.9.",
    )
    drift_reference_rows: Annotated[int, Field(ge=500, le=1_000_000)] = Field(
        5000,
        description="Rows that the drift reference is frozen from: take as many as a day has, or a "
        "week, where the hour or the day changes what is asked.",
    )
    drift_columns: Names = Field(
        (), description="Inputs and outputs that are watched for drift. Default: all."
    )
    drift_rows: Literal["one", "all"] = Field(
        "one",
        description="Rows of a request that count for drift: `one`, whatever they have in common, or "
        "`all`, where rows of a request are as independent as requests are.",
    )
    label_maturity_seconds: Seconds = Field(
        86400.0,
        description="Rollouts that say nothing else: how long after a request its label may "
        "arrive and still decide. Nothing of a request is counted before that time is over.",
    )
    poll_seconds: PositiveSeconds = Field(
        2.0, description="How often the models folder is looked at for new versions."
    )
    settle_seconds: Seconds = Field(
        1.0,
        description="How long a new version's files must be unchanged before it is registered, "
        "so that one still being copied is not picked up half done.",
    )
    load_seconds: PositiveSeconds = Field(
        120.0,
        description="Most time that loading, checking and warming a version may take, where its "
        "version.yaml does not say.",
    )
    grace_seconds: Seconds = Field(
        30.0,
        description="Most time after SIGTERM until the server has ended; requests in flight "
        "finish within it.",
    )
    drain_seconds: Seconds = Field(
        1.0,
        description="How long connections are still accepted after SIGTERM, while the server "
        "already says that it is not ready; set it above your load balancer's check interval.",
    )

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

    def _refuse_records(self) -> None:
        both = set(self.records_redact) & set(self.records_hash)
        if both:
            raise ValueError(f"records_redact and records_hash both name {min(both)!r}: choose one")
        for word in ("all", "none"):
            if word in self.records_inputs and len(self.records_inputs) > 1:
                raise ValueError(f"records_inputs is {word!r} or names of columns, not both")
        if self.records == "off":
            for name, field in type(self).model_fields.items():
                if name.startswith(("records_", "drift_")) and getattr(self, name) != field.default:
                    raise ValueError(f"{name} is given, and records is off: leave one out")
        for name, field in type(self).model_fields.items():
            given = name.startswith("drift_") and getattr(self, name) != field.default
            if given and self.drift_seconds == 0 and name != "drift_seconds":
                raise ValueError(f"{name} is given, and drift_seconds is 0: leave one out")

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

    def limits(self) -> Limits:
        """What a data-plane worker accepts."""
        return Limits(**{name: getattr(self, LIMIT + name) for name in Limits.__struct_fields__})

    def spawns_hosts(self) -> bool:
        """Whether hosts are started anew instead of being forked."""
        return self.host_start == "spawn" or (self.host_start == "auto" and sys.platform != "linux")

    def memory_budget(self) -> int:
        """Bytes that the loaded versions may take together."""
        if self.memory_budget_mb is not None:
            return self.memory_budget_mb * 1024 * 1024
        return machine_memory() * 4 // 5

    def secret(self) -> str | None:
        """The token in clear, or None."""
        return None if self.token is None else self.token.get_secret_value()

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

    def drift(self) -> DriftSettings | None:
        """How records are watched for drift, None for not at all."""
        if self.drift_seconds == 0:
            return None
        return DriftSettings(
            seconds=self.drift_seconds,
            tolerance=self.drift_tolerance,
            rows=self.drift_reference_rows,
            columns=self.drift_columns,
            one_row=self.drift_rows == "one",
            slice_seconds=min(60.0, self.drift_seconds),
        )

    def webhook_secret(self) -> str | None:
        """The registry's webhooks' secret in clear, or None."""
        secret = self.registry_webhook_secret
        return None if secret is None else secret.get_secret_value()

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


# What child processes are given of the environment: what libraries need to be found and to
# compute, and nothing of hotswap's own (its token above all).
_PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "TERM", "NO_COLOR", "FORCE_COLOR",
)  # fmt: skip
_PASSED_ON_PREFIXES = ("LC_", "PYTHON", "CUDA_", "NVIDIA_", "COVERAGE_")


def child_environment() -> dict[str, str]:
    """The environment of the server's own processes."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


# What the libraries that fetch versions find their credentials and endpoints by. Only control
# and its fetching process are given them: no worker, no host, no job that may run a model's code.
_CREDENTIALS = (
    "AWS_", "GOOGLE_", "GCSFS_", "FSSPEC_", "MLFLOW_", "STORAGE_EMULATOR_HOST",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
# Short, where the user says nothing: who asks again soon need not be patient. And all through the
# tracking server, which never sends us to another address.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def credentials() -> dict[str, str]:
    """What of the environment is for fetching versions alone."""
    return {name: v for name, v in os.environ.items() if name.startswith(_CREDENTIALS)}


def fetching_environment() -> dict[str, str]:
    """The environment of the process that fetches versions and speaks with registries."""
    return child_environment() | _MLFLOW | credentials()


def machine_memory(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The memory, in bytes, that this machine or this container has."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = 4 * 1024**3  # the platform does not tell; a modest machine is assumed
    try:
        return min(total, int(cgroup.read_text()))
    except (OSError, ValueError):  # no control group, or "max": no limit of its own
        return total


def _read_mapping(path: Path, what: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{what} {path} cannot be read: {reason}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{what} {path} is not valid YAML: {line}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{what} {path} must hold settings, as 'name: value'")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises `ConfigError` for what it cannot mean."""
    content = _read_mapping(path, "the configuration file")
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
