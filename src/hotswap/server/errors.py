"""Errors to HTTP, in one place: status, JSON body ``{"error": sentence}``, Retry-After.

Used by every listener. Nothing of a traceback, a path or an environment value is shown:
`scrub` rewrites known roots, and what is unexpected becomes one general sentence.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from hotswap import errors

log = logging.getLogger("hotswap.server")

STATUS: Final[dict[type[BaseException], int]] = {
    errors.BadInput: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.ReceiveTimeout: 408,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.WrongHost: 421,
    errors.Overloaded: 429,
    errors.HeadersTooLarge: 431,
    errors.ModelFailed: 500,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
    errors.OutOfMemory: 507,
    errors.ConfigError: 400,
    errors.LoadError: 409,
    errors.StoreError: 503,
    errors.HotswapError: 500,
}

UNEXPECTED: Final = (
    "Something went wrong inside the server; its log has the details under this request's id."
)

_MAX_MESSAGE: Final = 2000
_ABSOLUTE = re.compile(r"(?<![\w.<>/:])(?:file://)?/(?!/)[\w.@+~-]+(?:/[\w.@+~ -]*[\w.@+~-])*/?")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\[^\s'\"]+")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):.*", re.DOTALL)


def status_of(exc: BaseException) -> int:
    """The HTTP status for an exception; 500 for what is not one of ours."""
    for kind in type(exc).__mro__:
        status = STATUS.get(kind)
        if status is not None:
            return status
    return 500


class Origin(NamedTuple):
    """The version whose failure is told: paths into its artifact are shown as its own."""

    model: str
    version: str
    digest: str = ""


def scrub(text: str, roots: Mapping[str, str] | None = None, origin: Origin | None = None) -> str:
    """``text`` without paths, tracebacks or values of the environment.

    ``roots`` maps an absolute folder to what is shown instead of it, for instance
    ``{"/srv/state/artifacts/ab12": "fraud/v2"}``. A path through a folder named after
    ``origin`` (its digest, or its model and version) is shown from there on. Any other absolute
    path keeps only its last part.

    >>> scrub("cannot open /srv/a/x.json", {"/srv/a": "fraud/v2"})
    'cannot open fraud/v2/x.json'
    >>> scrub("cannot open /etc/secret/x.json")
    'cannot open …/x.json'
    >>> scrub("no /srv/artifacts/ab12/x.json", origin=Origin("fraud", "v2", "sha256:ab12"))
    'no fraud/v2/x.json'
    """
    text = _TRACEBACK.sub("(traceback in the log)", text)
    # No setting is read here: the values are only looked for, to be hidden.
    for name, value in os.environ.items():
        # Short and common values ("1", "en_US") would only damage the sentence.
        if len(value) >= 8 and value in text and not value.startswith("/"):
            text = text.replace(value, f"<{name}>")
    for root in sorted(roots or {}, key=len, reverse=True):
        text = text.replace(root.rstrip("/"), (roots or {})[root].rstrip("/"))
    if origin is not None:
        text = _of_origin(text, origin)
    text = _ABSOLUTE.sub(_last_part, text)
    text = _WINDOWS.sub("…", text)
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _of_origin(text: str, origin: Origin) -> str:
    shown = f"{origin.model}/{origin.version}"
    folders = [re.escape(shown)]
    digest = origin.digest.rpartition(":")[2]
    if digest:
        folders.append(f"(?:sha256[:-])?{re.escape(digest)}")
    pattern = rf"(?<![\w.<>/:])(?:file://)?/(?:[\w.@+~-]+/)*(?:{'|'.join(folders)})(?![\w.-])"
    return re.sub(pattern, lambda _: shown, text)


def _last_part(match: re.Match[str]) -> str:
    whole = match.group(0)
    parts = [part for part in whole.split("/") if part]
    return f"…/{parts[-1]}" if len(parts) > 1 else whole


def describe(exc: BaseException, roots: Mapping[str, str] | None = None) -> str:
    """A model's exception as clients see it: its type and its message, scrubbed."""
    message = scrub(str(exc), roots).strip()
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__


def error_body(message: str) -> bytes:
    """``{"error": message}`` as JSON bytes, whatever ``message`` holds."""
    try:
        return msgspec.json.encode({"error": message})
    except UnicodeEncodeError:
        cleaned = message.encode("utf-8", "replace").decode("utf-8")
        return msgspec.json.encode({"error": cleaned})


def translate(
    exc: BaseException, request_id: str = "", origin: Origin | None = None
) -> tuple[int, tuple[tuple[bytes, bytes], ...], bytes]:
    """Status, extra headers and JSON body for an exception. Logs what is unexpected.

    Our own errors say what they say (a model's failure is scrubbed once more, as its text is
    not ours); anything else is logged with its traceback under ``request_id``.
    """
    if isinstance(exc, MemoryError):
        exc = errors.OutOfMemory()
    if not isinstance(exc, errors.HotswapError):
        log.error(
            "unexpected error answering a request",
            extra={"request_id": request_id},
            exc_info=(type(exc), exc, exc.__traceback__),
        )
        return 500, (), error_body(UNEXPECTED)
    status = status_of(exc)
    message = exc.message
    for traceback in getattr(exc, "__notes__", ()):  # the model's own, from its process
        log.warning("the model failed", extra={"request_id": request_id, "traceback": traceback})
    if status >= 500 and not isinstance(exc, errors.Retryable):
        message = scrub(message, origin=origin)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(exc, errors.Retryable):
        seconds = exc.retry_after if math.isfinite(exc.retry_after) else 1.0
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(seconds))),)
    elif isinstance(exc, errors.Unauthorized):
        headers = ((b"www-authenticate", b"Bearer"),)
    return status, headers, error_body(message)


__all__ = [
    "STATUS",
    "UNEXPECTED",
    "Origin",
    "describe",
    "error_body",
    "scrub",
    "status_of",
    "translate",
]
