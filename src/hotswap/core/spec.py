"""What operators ask for: versions and their settings, hosts to run, limits to keep."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hotswap.core.signature import Signature

Json = dict[str, Any]


class VersionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one version is run: the content of ``version.yaml`` (every key optional).

    ``instances``: host processes. ``threads``: library threads in each. ``batch_rows``: most
    rows in one call. ``finite``: a NaN or infinity in an output is a failure. ``pure``: a
    request that was lost with a host may be sent again. ``in_place``: the artifact is not
    copied, but hashed at each load. ``compile``: ``"onnx"`` converts at registration.
    ``load_seconds`` / ``hang_seconds`` / ``memory_mb``: limits on loading, on one call, and on
    a host's own memory. ``samples``: a file beside the artifact (.json, .npy, .npz or .csv) or
    rows given here. ``signature``: declared, where the artifact does not tell.
    ``parity_atol`` / ``parity_rtol``: tolerances of the proof that ``compile`` must pass.
    """

    runtime: str | None = None
    signature: Signature | None = None
    samples: str | list[Any] | None = None
    instances: int = 1
    threads: int = 1
    batch_rows: int = 1024
    finite: bool = False
    pure: bool = True
    in_place: bool = False
    compile: Literal["onnx"] | None = None
    load_seconds: float = 120.0
    hang_seconds: float = 30.0
    memory_mb: int | None = None
    parity_atol: float = 1e-4
    parity_rtol: float = 1e-3
    metadata: Json = {}
    changelog: str = ""


class ManifestEntry(msgspec.Struct, frozen=True, array_like=True):
    """One file of an artifact: its path within the folder (``/`` separated), size in bytes, sha256 hex."""

    path: str
    size: int
    sha256: str


class Artifact(msgspec.Struct, frozen=True):
    """One immutable artifact on disk.

    ``folder`` is absolute and holds every file of ``manifest``; ``entry`` is the file (or "."
    for a folder format such as MLflow's) that the runtime loads; ``digest`` is
    ``sha256:<hex>`` of the manifest.
    """

    folder: str
    entry: str
    runtime: str
    digest: str
    manifest: tuple[ManifestEntry, ...] = ()


class VersionRecord(msgspec.Struct, frozen=True):
    """One registered version, as the store keeps it. ``created_at`` is Unix time, for display."""

    model: str
    version: str
    artifact: Artifact
    settings: VersionSettings
    uri: str
    metadata: Json
    changelog: str
    created_at: float
    created_by: str


class Limits(msgspec.Struct, frozen=True):
    """What a data-plane worker accepts. Sizes in bytes, times in seconds.

    ``json_bytes`` bounds JSON and CSV, decompressed: decoding them holds up a worker's loop, and
    one that stands still for 5 s is replaced. Raw tensors are bounded by the body alone.
    """

    body_bytes: int = 64 * 1024 * 1024
    decompressed_bytes: int = 256 * 1024 * 1024
    decompressed_ratio: int = 200
    json_bytes: int = 16 * 1024 * 1024
    json_depth: int = 64
    header_bytes: int = 64 * 1024
    header_count: int = 128
    rows: int = 1_000_000
    queue_rows: int = 4096
    connections: int = 10_000
    default_timeout: float = 30.0
    max_timeout: float = 300.0
    receive_timeout: float = 30.0
    keepalive_timeout: float = 75.0


class Ingested(msgspec.Struct, frozen=True):
    """A source that was taken in: hashed, copied unless in place, with its settings and runtime.

    ``platform`` is what the runtime calls itself in the protocol's metadata. ``runs_code`` says
    in a sentence why loading the artifact can run code that it carries; None if it cannot.
    """

    artifact: Artifact
    settings: VersionSettings
    platform: str = ""
    runs_code: str | None = None
