"""Readings of a Prometheus server: the one number that a query gives now.

Anything that speaks Prometheus' HTTP API will do. What is no number is no data; what cannot be
asked is an outage; a query that can never give one number is the caller's mistake.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from hotswap.errors import BadInput, ConfigError, MetricsUnavailable

if TYPE_CHECKING:
    import httpx2

#: An answer of one sample takes a few hundred bytes; one that is longer is several or no answer.
ANSWER_BYTES: Final = 1 << 20
#: In bytes; a longer one does not fit into an address.
QUERY_BYTES: Final = 16 << 10
_SHOWN: Final = 300
_AGGREGATE: Final = "aggregate it to one number, with sum(…), max(…) or avg(…)"
# Refusals that are about who asks or how often, not about the query.
_NOT_THE_QUERY: Final = frozenset({401, 403, 407, 408, 429})


class PrometheusSource:
    """A `hotswap.ports.MetricSource` that asks ``url`` (with any path that its API is under).

    ``token`` is sent as ``Authorization: Bearer``; a user and password in ``url`` as basic
    authentication; neither is ever shown. ``timeout``: seconds for a whole reading. ``verify``:
    whether a certificate must be valid. Raises `ConfigError` for a url that cannot be asked.
    """

    def __init__(
        self, url: str, *, token: str | None = None, timeout: float = 5.0, verify: bool = True
    ) -> None:
        self._shown, self._auth = _address(url)
        self._timeout = timeout
        self._verify = verify
        password = self._auth[1] if self._auth is not None else ""
        self._secrets = [each for each in (token, password) if each]
        # An answer is read as it comes: one that is compressed could grow without bound.
        self._headers = {"accept": "application/json", "accept-encoding": "identity"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._client: httpx2.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, query: str) -> float | None:
        """The query's one number now; None if it gives no sample or none that is finite.

        Raises `MetricsUnavailable` if Prometheus cannot be asked or its answer is not whole,
        `BadInput` if it finds the query wrong or the query gives anything but one number.
        """
        _check_query(query)
        status, body = await self._answered(query)
        answer = _decoded(body)
        if status != 200:
            raise self._refused(status, answer)
        if answer is None or answer.get("status") != "success":
            raise MetricsUnavailable(f"{self._shown} does not answer as Prometheus does")
        self._refuse_warnings(answer.get("warnings"))
        try:
            return _number(answer.get("data"))
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise MetricsUnavailable(f"{self._shown} does not answer as Prometheus does") from None

    async def close(self) -> None:
        """Let go of the connections; may be called twice."""
        if self._client is not None:
            await self._client.aclose()

    async def _opened(self) -> httpx2.AsyncClient:
        """The client, made by the first reading: the certificate authorities are read from files,
        which takes time, and fails where somebody named a wrong one.
        """
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await asyncio.to_thread(self._open)
                except OSError as exc:
                    raise MetricsUnavailable(
                        f"the certificate authorities cannot be read: {self._clean(exc)}"
                    ) from None
            return self._client

    def _open(self) -> httpx2.AsyncClient:
        import httpx2

        return httpx2.AsyncClient(
            headers=self._headers, auth=self._auth, verify=self._verify, follow_redirects=False,
            timeout=self._timeout,
        )  # fmt: skip

    async def _answered(self, query: str) -> tuple[int, bytes]:
        """Status and body. Raises `MetricsUnavailable` if there is none in time."""
        client = await self._opened()
        import httpx2

        try:
            async with asyncio.timeout(self._timeout):
                return await self._ask(client, query)
        except (TimeoutError, httpx2.TimeoutException):
            raise MetricsUnavailable(
                f"{self._shown} did not answer within {self._timeout:g} s"
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            why = self._clean(exc) or type(exc).__name__
            raise MetricsUnavailable(f"{self._shown} cannot be reached: {why}") from None

    async def _ask(self, client: httpx2.AsyncClient, query: str) -> tuple[int, bytes]:
        # Prometheus gives up when nobody waits any more.
        params = {"query": query, "timeout": f"{max(1, round(self._timeout * 1000))}ms"}
        body = bytearray()
        url = f"{self._shown}/api/v1/query"
        async with client.stream("GET", url, params=params) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    if response.status_code == 200 and b'"success"' in body[:100]:
                        raise BadInput(
                            f"the query gives more samples than can be read: {_AGGREGATE}"
                        )
                    return response.status_code, b""
            return response.status_code, bytes(body)

    def _refused(self, status: int, answer: dict[str, Any] | None) -> Exception:
        said = self._clean(answer.get("error")) if answer is not None else ""
        if status // 100 == 3:
            return MetricsUnavailable(
                f"{self._shown} redirects (HTTP {status}): give the address that it leads to"
            )
        if said and status // 100 == 4 and status not in _NOT_THE_QUERY:
            return BadInput(f"Prometheus refuses the query: {said}")
        if status in (401, 403):
            return MetricsUnavailable(
                f"{self._shown} refuses the credentials (HTTP {status}): check prometheus_token"
            )
        if status == 404:
            return MetricsUnavailable(
                f"{self._shown} has no query API (HTTP 404): check the path of prometheus_url"
            )
        return MetricsUnavailable(
            f"{self._shown} answers with HTTP {status}" + (f": {said}" if said else "")
        )

    def _refuse_warnings(self, warnings: object) -> None:
        """A number with a warning is not the whole truth, so it must not count as good.

        Those that begin with PromQL are about the query; others say that data is missing.
        """
        if not isinstance(warnings, list) or not warnings:
            return
        said = self._clean(warnings[0])
        if said.startswith("PromQL"):
            raise BadInput(f"Prometheus warns of the query: {said}")
        raise MetricsUnavailable(f"{self._shown} answers with a part of the data: {said}")

    def _clean(self, text: object) -> str:
        """Foreign text on one line, shortened, with no secret in it, should it be sent back."""
        line = " ".join(str(text or "").split())
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"


def _check_query(query: str) -> None:
    try:
        size = len(query.encode())
    except UnicodeEncodeError:
        raise BadInput("the query is not valid Unicode") from None
    if size > QUERY_BYTES:
        raise BadInput(
            f"the query has {size} bytes and may have {QUERY_BYTES}: make a recording rule of it"
        )


def _address(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address without credentials or a slash at its end, and the credentials."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise ConfigError(
            "the address of Prometheus must be like http://127.0.0.1:9090 or "
            "https://host/prefix, without a query"
        )
    place = f"[{host}]" if ":" in host else host
    if port is not None:
        place += f":{port}"
    auth = None
    if parts.username is not None:
        auth = (unquote(parts.username), unquote(parts.password or ""))
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), auth


def _decoded(body: bytes) -> dict[str, Any] | None:
    """A JSON object, or None."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return answer if isinstance(answer, dict) else None


def _number(data: Any) -> float | None:
    """The number of an answer's data. Raises whatever a malformed one leads to, or `BadInput`."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return _finite(result)
    if kind == "vector" and isinstance(result, list):
        if not result:
            return None
        if len(result) > 1:
            raise BadInput(f"the query gives {len(result)} samples: {_AGGREGATE}")
        if "value" not in result[0]:
            raise BadInput(
                "the query gives a histogram: take one number from it, with "
                "histogram_quantile(…) or histogram_fraction(…)"
            )
        return _finite(result[0]["value"])
    if kind == "matrix":
        raise BadInput("the query gives a range of samples: use a function of it, such as rate(…)")
    if kind == "string":
        raise BadInput("the query gives a text: it must give a number")
    raise ValueError


def _finite(sample: Any) -> float | None:
    """The value of a ``[time, "value"]`` pair; None for NaN and infinities."""
    if not isinstance(sample, list) or not isinstance(text := sample[1], str):
        raise TypeError
    value = float(text)
    return value if math.isfinite(value) else None
