"""URIs of what lies elsewhere."""

from __future__ import annotations

import pytest

from hotswap.core.uris import (
    ModelReference,
    Place,
    check_allowed,
    check_prefix,
    is_remote,
    may_name,
    parse_remote,
)
from hotswap.errors import BadInput


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://models/fraud/3", Place("s3", "models/fraud/3")),
        ("S3://models/fraud/model.tar.gz", Place("s3", "models/fraud/model.tar.gz")),
        ("gs://a-bucket/x y/3/", Place("gs", "a-bucket/x y/3")),
        ("models:/fraud/3", ModelReference("fraud", version="3")),
        ("models:/fraud score@champion", ModelReference("fraud score", alias="champion")),
    ],
)
def test_what_is_plain_is_read(uri: str, place: Place | ModelReference) -> None:
    """Object stores by bucket and key, registered versions by number or alias."""
    assert parse_remote(uri) == place
    assert is_remote(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/model.joblib", "https://example.org/m", "ftp://a/b", "memory://a/b",
        " ", "s3://", "s3:///key", "s3://bucket", "s3://bucket/", "s3:bucket/key", "s3://b/key",
        "s3://bucket/../other/key", "s3://bucket/a/./b", "s3://bucket/a//b", "s3://bucket/a/..",
        "s3://bucket/%2e%2e/x", "s3://bucket/a\\b", "s3://bucket/a\nb", "s3://bucket/a\x00",
        "s3://bucket/key?versionId=3", "s3://bucket/key#x", "s3://bucket/*", "s3://bucket/[a]",
        "s3://user:password@bucket/key", "s3://bucket:80/key", "s3://bucket::file:///etc/passwd",
        "models:/fraud", "models:fraud/3", "models:///fraud/3", "models:/a/b/3", "models:/m-12ab",
        "models:/fraud/Production", "models:/../3", "models:/fraud@", "models:/@champion",
        "s3://bucket/" + "x" * 3000,
    ],
)  # fmt: skip
def test_what_is_not_plain_is_refused(uri: str) -> None:
    """No address has a second reading, and none leads to a web server."""
    with pytest.raises(BadInput):
        parse_remote(uri)


def test_a_prefix_ends_at_a_slash() -> None:
    """What only begins alike is outside, and the refusal names the setting."""
    prefixes = [check_prefix("s3://models/fraud/"), check_prefix("gs://bucket")]
    for inside in ("s3://models/fraud/3", "s3://models/fraud", "gs://bucket/any/thing"):
        place = parse_remote(inside)
        assert isinstance(place, Place)
        check_allowed(place, prefixes)
    for outside in (
        "s3://models/fraud2/3",
        "s3://models/other",
        "gs://bucket2/x",
        "gs://models/fraud",
    ):
        place = parse_remote(outside)
        assert isinstance(place, Place)
        with pytest.raises(BadInput, match="--allow-uri"):
            check_allowed(place, prefixes)


@pytest.mark.parametrize(
    "text", ["/models", "file:///models", "http://a.b/", "s3://", "models:/x", "s3://b*"]
)
def test_other_prefixes_are_refused(text: str) -> None:
    """A prefix is one of an object store."""
    with pytest.raises(BadInput):
        check_prefix(text)


@pytest.mark.parametrize(
    ("uri", "recorded", "may"),
    [
        ("s3://models/m/v1/", "s3://models/m/v1", True),
        ("s3://models/new/v1", "s3://models/old/v1", False),
        ("models:/m/03", "models:/m/3", True),
        ("models:/m/9", "models:/m/2", False),
        ("models:/m@champion", "models:/m/2", True),
        ("models:/other@champion", "models:/m/2", False),
        ("s3://models/m/v1", "/models/m/v1", False),
        ("/models/m/v1", "models:/m/2", False),
        ("/here/m/v1", "/there/m/v1", True),
        ("s3://no", "s3://no", True),
    ],
)
def test_where_a_version_came_from_is_compared(uri: str, recorded: str, may: bool) -> None:
    """An alias stands for any version of its model; paths of two machines say nothing."""
    assert may_name(uri, recorded) is may
