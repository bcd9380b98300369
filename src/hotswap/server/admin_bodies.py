"""What clients send to the control API: typed, strict, and without unknown keys."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr

from hotswap.core.naming import check_name
from hotswap.core.uris import is_remote, parse_remote
from hotswap.errors import BadInput

_AT_ONCE = "this route switches at once; send strategies to POST /api/v1/rollouts"

# Keys of other routes, with the reason why they are refused where they are not known.
ELSEWHERE: dict[str, str] = dict.fromkeys(
    ("strategy", "strategy_type", "strategy_config", "steps"), _AT_ONCE
)

DEEPEST = 32
LARGEST = 2**63 - 1

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def _name(kind: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            return check_name(kind, value)
        except BadInput as error:  # pydantic gathers ValueErrors
            raise ValueError(error.message) from None

    return AfterValidator(check)


def _json_only(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what JSON text cannot hold, or others cannot read, although Python's parser can."""
    _check_values(value)
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("must hold valid Unicode text") from None
    except ValueError:
        raise ValueError("must not hold NaN or infinity") from None
    return value


def _check_values(value: Any) -> None:
    """Refuse deep nesting and integers of more than 64 bits."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
            elif isinstance(each, int) and not -LARGEST <= each <= LARGEST:
                raise ValueError("must not hold integers of more than 64 bits")
        if not inner:
            return
        level = inner
    raise ValueError(f"must not be nested deeper than {DEEPEST} levels")


def local_path(uri: str) -> str:
    """The path that ``uri`` means: a plain path or ``file:///…``; what is to be fetched, as it is.

    Raises `ValueError`, naming the scheme of any other.

    >>> local_path("file:///models/a%20b")
    '/models/a b'
    """
    if "\0" in uri or not uri:
        raise ValueError("must be the path of a file or a folder")
    match = _SCHEME.match(uri)
    if match is None or len(match[1]) == 1:  # one letter: a drive
        return uri
    scheme = match[1].lower()
    if is_remote(uri):
        try:
            parse_remote(uri)
        except BadInput as error:  # pydantic gathers ValueErrors
            raise ValueError(error.message) from None
        return uri
    if scheme != "file":
        raise ValueError(
            f"{scheme}: URIs are not supported by this release: give a path that the server can "
            "read, plain or as file:///path, or an s3://, gs:// or models:/ URI"
        )
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError("a file URI needs three slashes and an absolute path: file:///path")
    return unquote(parts.path)


ModelName = Annotated[StrictStr, _name("model")]
VersionName = Annotated[StrictStr, _name("version")]
Key = Annotated[StrictStr, Field(min_length=1, max_length=200)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_json_only)]


class Body(BaseModel):
    """A request body."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class RegisterBody(Body):
    """A version to register."""

    version: VersionName | None = Field(
        None, description="Its id, which is never reused; without it, the next vN."
    )
    uri: Annotated[StrictStr, AfterValidator(local_path)] = Field(
        description="The artifact's file or folder: a path on the server, within the allowed "
        "roots, or an s3://, gs:// or models:/ URI that the server may fetch.",
        examples=["/models/fraud/v3"],
    )
    runtime: StrictStr | None = Field(
        None, description="What runs it, where the files do not tell.", examples=["sklearn"]
    )
    metadata: JsonObject | None = Field(None, description="Anything, kept with the version.")
    changelog: StrictStr = Field("", description="What is new in it.", max_length=100_000)
    in_place: StrictBool = Field(
        False, description="Do not copy the artifact; it is hashed again at each load."
    )
    compile: StrictStr | None = Field(
        None, description="'onnx' converts the artifact and proves that both agree."
    )


class SwitchBody(Body):
    """A switch of one model's traffic."""

    version: VersionName = Field(description="The version that is to answer.", examples=["v2"])
    force: StrictBool = Field(
        False, description="Switch even to a version whose signature does not fit the model's."
    )
    idempotency_key: Key | None = Field(
        None, description="The same key again gives the first answer again, and switches nothing."
    )


class RollbackBody(Body):
    """A way back to the previous version."""

    idempotency_key: Key | None = Field(
        None, description="The same key again gives the first answer again, and switches nothing."
    )


class SetActiveBody(Body):
    """A switch, in the simple admin API."""

    model: ModelName | None = Field(
        None, description="May be left out when one model is registered."
    )
    version: VersionName = Field(description="The version that is to answer.", examples=["v2"])


def sentence(problems: Sequence[Any]) -> str:
    """The first of pydantic's problems, as one sentence that names the place."""
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"][1:] if not isinstance(part, int))
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "json_invalid":
            return f"the body is not valid JSON: {first.get('ctx', {}).get('error', message)}"
        case "extra_forbidden" if place in ELSEWHERE:
            return f"'{place}' cannot be used: {ELSEWHERE[place]}"
        case "extra_forbidden":
            unknown = [str(p["loc"][-1]) for p in problems if p["type"] == "extra_forbidden"]
            names = ", ".join(repr(_printable(name)) for name in unknown[:5])
            return f"the body has unknown keys: {names}; leave them out"
        case "missing" if not place:
            return "this route needs a JSON body"
        case "missing":
            return f"the body needs '{place}'"
        case "value_error" if not place:
            return f"the body {message}"
        case "value_error":
            return f"'{place}' is refused: {message}"
    if not place:
        return "the body must be a JSON object with valid Unicode keys"
    return f"'{place}' is refused: {message[0].lower()}{message[1:]}"


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:64]
