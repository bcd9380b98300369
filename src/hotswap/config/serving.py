"""Settings of where a server listens, what it loads, and whom it trusts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from hotswap.config.environment import default_workers, machine_memory
from hotswap.config.values import (
    Count,
    Digests,
    Folder,
    Folders,
    Host,
    Names,
    Port,
    PositiveSeconds,
    Prefixes,
    Seconds,
    existing_store,
    printable,
    way_to_start,
)


class ServingSettings(BaseModel):
    """Settings of where a server listens, what it loads, and whom it trusts."""

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
    store: Annotated[str, AfterValidator(existing_store)] = Field(
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
    token: Annotated[SecretStr, AfterValidator(printable)] | None = Field(
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
    host_start: Annotated[Literal["auto", "fork", "spawn"], AfterValidator(way_to_start)] = Field(
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


__all__ = ["ServingSettings"]
