"""Talking to a running server, with errors that say what to do."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, Self
from urllib.parse import urlsplit, urlunsplit

import typer

from hotswap.core.naming import check_name
from hotswap.errors import HotswapError

DEFAULT_URL = "http://127.0.0.1:8081"
_NOT_NOW = (502, 503, 504)
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Url = Annotated[
    str,
    typer.Option(
        "--url", envvar="HOTSWAP_URL", help="Address of the server's control API.", metavar="URL"
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="HOTSWAP_TOKEN",
        show_envvar=True,
        help="The server's token; better given by the variable, as others can read flags.",
        metavar="TOKEN",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class CommandFailed(HotswapError):
    """The command failed. ``status``: of the server's answer that says so, else None.
    ``retry_after``: in how many seconds it may be tried again, if the answer says that.
    """

    def __init__(
        self,
        message: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Unreachable(CommandFailed):
    """No server answers at present, or one that is not ready to: later it may."""


class Client:
    """One server. Raises `CommandFailed` with the server's own sentence, or why there is none."""

    def __init__(self, url: str, token: str | None = None, timeout: float | None = 30.0) -> None:
        import httpx2

        self.url = _checked(url)
        self.local = (urlsplit(self.url).hostname or "") in LOOPBACK
        headers = {"x-hotswap-user": _user()}
        if token:
            headers["authorization"] = f"Bearer {token}"
        try:
            # A proxy of the environment cannot reach this machine's own loopback.
            self._http = httpx2.Client(
                headers=headers,
                timeout=httpx2.Timeout(timeout, connect=5.0),
                trust_env=not self.local,
            )
        except (UnicodeEncodeError, ValueError):
            raise CommandFailed("the token must be printable ASCII characters") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """The JSON that ``path`` answers with."""
        return self.call("GET", path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that answers ``body``; waits as long as the server works on it."""
        return self.call("POST", path, body, wait=True)

    def delete(self, path: str) -> Any:
        """The JSON that answers the removal."""
        return self.call("DELETE", path)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        wait: bool = False,
    ) -> Any:
        """One request; its answer's JSON."""
        import httpx2

        more: dict[str, Any] = {"json": body} if body is not None else {}
        if wait:  # loads take what they take, and have their own limit in the server
            more["timeout"] = httpx2.Timeout(None, connect=5.0)
        try:
            response = self._http.request(method, self.url + path, **more)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise Unreachable(
                f"no server answers at {self.url}: start one with 'hotswap serve MODELS', or "
                "name another with --url"
            ) from None
        except httpx2.TimeoutException:
            raise Unreachable(f"the server at {self.url} did not answer in time") from None
        except httpx2.InvalidURL as problem:
            raise CommandFailed(f"'{self.url}' is not a URL: {problem}") from None
        except httpx2.HTTPError as problem:
            raise Unreachable(f"talking to {self.url} failed: {problem}") from None
        after = response.headers.get("retry-after", "")
        return self._answer(response.status_code, response.content, after)

    def _answer(self, status: int, content: bytes, after: str) -> Any:
        import json

        try:
            answer = json.loads(content)
        except ValueError:
            raise CommandFailed(
                f"what answers at {self.url} is not a hotswap server's control API (status "
                f"{status}): give its address with --url"
            ) from None
        if status < 400:
            return answer
        sentence = answer.get("error") if isinstance(answer, dict) else None
        message = str(sentence or f"the server answered with status {status}")
        if status == 401:
            message += " (here: --token or HOTSWAP_TOKEN)"
        kind = Unreachable if status in _NOT_NOW else CommandFailed
        raise kind(message, status, float(after) if after.isdecimal() else None)


def segment(name: str) -> str:
    """``name`` as one segment of a path. Raises `BadInput` for what names nothing.

    >>> segment("fraud-v1.2")
    'fraud-v1.2'
    """
    return check_name("model or version", name)


def data_url(info: Mapping[str, Any], control_url: str) -> str:
    """Where the data plane answers, as seen from here.

    A server bound to every address names no address of its own: the control API's is taken.
    """
    parts = urlsplit(_checked(str(info.get("data", ""))))
    if parts.hostname in ("0.0.0.0", "::"):
        host = urlsplit(control_url).hostname or ""
        shown = f"[{host}]" if ":" in host else host
        parts = parts._replace(netloc=f"{shown}:{parts.port}")
    return urlunsplit(parts)


def complete_models(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of models that begin so, for the shell; none if there is no server."""
    return [m["name"] for m in _known(ctx) if m["name"].startswith(incomplete)]


def complete_versions(ctx: typer.Context, incomplete: str) -> list[str]:
    """The versions of the model that was typed before."""
    versions = [
        v["version"]
        for m in _known(ctx)
        if m["name"] == ctx.params.get("model")
        for v in m["versions"]
    ]
    return [version for version in versions if version.startswith(incomplete)]


def _known(ctx: typer.Context) -> list[dict[str, Any]]:
    url = ctx.params.get("url") or DEFAULT_URL
    try:
        with Client(url, ctx.params.get("token"), timeout=0.5) as client:
            models: list[dict[str, Any]] = client.get("/api/v1/models")["models"]
    except (HotswapError, KeyError, TypeError):
        return []
    return models


def _checked(url: str) -> str:
    text = url.strip()
    if "://" not in text:
        text = "http://" + text
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise CommandFailed(f"'{url}' is not a URL such as {DEFAULT_URL}")
    return text.rstrip("/")


def _user() -> str:
    """Who is shown to have registered a version: a claim, not a proof."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
    return name if name.isascii() and name.isprintable() else ""
