"""What single settings may be: each check raises `ValueError`, which pydantic gathers."""

from __future__ import annotations

import re
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from hotswap.config.yaml_file import read_mapping
from hotswap.core.uris import check_prefix
from hotswap.errors import BadInput, ConfigError


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


def existing_store(value: str) -> str:
    """A store that this version of hotswap has."""
    if value not in ("sqlite", "memory"):
        raise ValueError(f"{value!r} is not a store that exists here: use 'sqlite' or 'memory'")
    return value


def way_to_start(value: str) -> str:
    """A way to start hosts that this platform has."""
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


def fsspec_place(value: str) -> str:
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


def printable(value: SecretStr) -> SecretStr:
    """A secret that can stand in a header."""
    text = value.get_secret_value()
    if not text or not all("!" <= c <= "~" for c in text):
        raise ValueError("must be one or more printable ASCII characters without spaces")
    return value


def web_address(value: str) -> str:
    """An address that requests can be sent to."""
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


def rollout_file(value: object) -> object:
    """A path stands for what the file holds, so that a later edit of it changes nothing."""
    if not isinstance(value, str | Path):
        return value
    try:
        return read_mapping(Path(value).expanduser(), "the file of a rollout")
    except ConfigError as error:
        raise ValueError(error.message) from None


def address_without_login(value: str) -> str:
    """Of a server whose user and password come from the environment."""
    if urlsplit(web_address(value)).username is not None:
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


__all__ = [
    "Alias", "Count", "Digests", "Folder", "Folders", "Host", "Names", "Port", "PositiveSeconds",
    "Prefixes", "Seconds", "Share", "address_without_login", "existing_store", "fsspec_place",
    "is_loopback", "printable", "rollout_file", "way_to_start",
    "web_address",
]  # fmt: skip
