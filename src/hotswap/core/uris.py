"""URIs of artifacts that lie elsewhere: which there are, and which an operator allows. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from hotswap.errors import BadInput

#: Schemes that files are fetched by.
STORES: Final = ("s3", "gs")
MODELS: Final = "models"

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_REFERENCE: Final = re.compile(
    r"(?P<name>[^/@]+)(?:@(?P<alias>[A-Za-z0-9_-]+)|/(?P<version>[0-9]{1,18}))"
)
_LONGEST: Final = 2048


class Place(msgspec.Struct, frozen=True):
    """A file or folder in an object store: ``path`` is the bucket, ``/`` and the key."""

    scheme: str
    path: str

    @property
    def uri(self) -> str:
        """As it is written."""
        return f"{self.scheme}://{self.path}"


class ModelReference(msgspec.Struct, frozen=True):
    """A version in a model registry, by its number or by an alias."""

    name: str
    version: str | None = None
    alias: str | None = None


def scheme_of(uri: str) -> str | None:
    """The scheme, in lower case; None for a plain path (one letter is a drive)."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def is_remote(uri: str) -> bool:
    """Whether it must be fetched first.

    >>> is_remote("s3://models/fraud/3"), is_remote("/models/fraud"), is_remote("file:///models")
    (True, False, False)
    """
    return scheme_of(uri) in (*STORES, MODELS)


def parse_remote(uri: str) -> Place | ModelReference:
    """What it names. Raises `BadInput` for what is not plain, or has a second reading.

    >>> parse_remote("models:/fraud@champion")
    ModelReference(name='fraud', version=None, alias='champion')
    >>> parse_remote("s3://models/fraud/3/")
    Place(scheme='s3', path='models/fraud/3')
    """
    shown = _shown(uri)
    _check_plain(uri, shown)
    scheme = scheme_of(uri)
    if scheme in STORES:
        return Place(scheme, _path(uri[len(scheme) + 1 :], shown))
    if scheme == MODELS:
        match = _REFERENCE.fullmatch(uri[len(MODELS) + 1 :].removeprefix("/"))
        if match is None or not uri[len(MODELS) + 1 :].startswith("/") or ".." in match["name"]:
            raise BadInput(
                f"the uri {shown} names no registered version: write models:/name@alias or "
                "models:/name/3"
            )
        return ModelReference(match["name"], match["version"], match["alias"])
    raise BadInput(
        f"the uri {shown} cannot be fetched: versions come from s3://, gs://, models:/ and files"
    )


def may_name(uri: str, recorded: str) -> bool:
    """Whether ``uri`` may name what was registered from ``recorded``. An alias may have stood for
    any version of its model; two paths say nothing, since each may be of another machine.

    >>> may_name("models:/m@champion", "models:/m/3"), may_name("models:/m/4", "models:/m/3")
    (True, False)
    """
    if not is_remote(uri) and not is_remote(recorded):
        return True
    try:
        one, other = parse_remote(uri), parse_remote(recorded)
    except BadInput:
        return uri == recorded
    if isinstance(one, ModelReference) and isinstance(other, ModelReference):
        numbers = {int(each.version) for each in (one, other) if each.version is not None}
        return one.name == other.name and len(numbers) <= 1
    return one == other


def check_prefix(text: str) -> str:
    """A prefix that an operator allows, without a slash at its end. Raises `BadInput`."""
    shown = _shown(text)
    _check_plain(text, shown)
    scheme = scheme_of(text)
    if scheme not in STORES:
        raise BadInput(f"{shown} is no place to fetch from: give a prefix such as s3://models/")
    return f"{scheme}://{_path(text[len(scheme) + 1 :], shown, bucket_alone=True)}"


def check_allowed(place: Place, prefixes: Sequence[str]) -> None:
    """Raises `BadInput`, naming the setting, unless one of ``prefixes`` holds it.

    A prefix ends at a slash: ``s3://models/fraud`` does not hold ``s3://models/fraud2``.
    """
    uri = place.uri
    if not any(uri == prefix or uri.startswith(prefix.rstrip("/") + "/") for prefix in prefixes):
        raise BadInput(
            f"the uri {_shown(uri)} is outside of what this server may fetch: allow its prefix "
            "with --allow-uri"
        )


def _path(rest: str, shown: str, *, bucket_alone: bool = False) -> str:
    if not rest.startswith("//"):
        raise BadInput(f"the uri {shown} needs two slashes before its bucket")
    path = rest[2:].removesuffix("/")
    bucket, _, key = path.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadInput(f"the uri {shown} names no bucket")
    if not key and not bucket_alone:
        raise BadInput(f"the uri {shown} names a whole bucket: name a folder or a file in it")
    if key and any(part in ("", ".", "..") for part in key.split("/")):
        raise BadInput(f"the uri {shown} is not plain: leave out '..', '.' and empty parts")
    return path


def _check_plain(uri: str, shown: str) -> None:
    if not uri.strip():
        raise BadInput("the uri is empty")
    if len(uri) > _LONGEST:
        raise BadInput(f"the uri is longer than {_LONGEST} characters")
    if "\\" in uri or not uri.isprintable():
        raise BadInput(f"the uri {shown} has a backslash or a control character")
    if any(each in uri for each in "?#*[]") or _PERCENT.search(uri) or "::" in uri:
        raise BadInput(
            f"the uri {shown} has a query, a pattern or an encoding: name one plain folder or file"
        )


def _shown(uri: str) -> str:
    return ascii(uri if len(uri) <= 120 else uri[:117] + "...")
