"""What the supervisor and its children say to each other. All of it is msgpack of these structs.

The supervisor is the hub: control and workers never connect to one another, so that any of
them can die and come back without the others having to find it again.
"""

from __future__ import annotations

import msgspec

from hotswap.core.routing import RouteTable
from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, Limits, VersionSettings
from hotswap.core.windows import Window


class HostSpec(msgspec.Struct, frozen=True):
    """Everything that a host process must know; the supervisor restarts it from this alone.

    ``runs_code``: its format can run code, so it is only started where the operator trusts it.
    ``public`` is the model's signature that the version must be adapted to, None for the first
    version of a model (it then decides) or if forced. ``roots`` are paths that must not be
    shown to clients. ``twin``: a second host of the stable version, for a rollout alone.
    """

    host: str
    model: str
    version: str
    instance: int
    slot: int
    artifact: Artifact
    settings: VersionSettings
    public: Signature | None
    allow_unvalidated: bool
    load_seconds: float
    runs_code: bool = False
    roots: tuple[str, ...] = ()
    twin: bool = False


class LoadReport(msgspec.Struct, frozen=True):
    """What a host found when it validated its version. Times in seconds, memory in bytes."""

    signature: Signature
    platform: str
    load_seconds: float
    warm_seconds: float
    steady_seconds: float
    memory_bytes: int
    warnings: tuple[str, ...] = ()


class HostState(msgspec.Struct, frozen=True):
    """One host as the supervisor sees it. ``state``: starting, ready, failed, stopping, restarting."""

    spec: HostSpec
    state: str
    pid: int | None = None
    incarnation: int = 0
    report: LoadReport | None = None
    error: str = ""
    error_type: str = ""
    restarts: int = 0


class RecordsSpec(msgspec.Struct, frozen=True):
    """What is kept of requests. ``share`` of them, ``input_share`` of those with inputs; ``columns``
    the only inputs that are kept (None: all); ``secret``: with which keys and columns are hashed.
    ``root``: the folder; ``location``: where compacted files go, None: below it. ``most_bytes`` and
    ``days``: how much and how long.
    """

    root: str
    secret: bytes
    share: float = 1.0
    input_share: float = 1.0
    columns: tuple[str, ...] | None = None
    redacted: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    location: str | None = None
    days: float = 30.0
    most_bytes: int = 2 << 30


class WorkerSpec(msgspec.Struct, frozen=True):
    """Everything that a worker must know. ``name`` is this process's alone, over all runs."""

    slot: int
    incarnation: int
    workers: int
    runtime_dir: str
    limits: Limits
    token: str | None
    access_log: bool
    log_level: str
    log_format: str
    readiness: str
    tables: tuple[RouteTable, ...]
    started: bool
    tally: str
    name: str = ""
    records: RecordsSpec | None = None


# --- supervisor -> nursery, with the host's channel as an attached descriptor
class Fork(msgspec.Struct, frozen=True, tag="fork"):
    host: str
    incarnation: int
    slot: int


class Preload(msgspec.Struct, frozen=True, tag="preload"):
    """Import these runtimes too."""

    runtimes: tuple[str, ...]


# --- nursery -> supervisor
class Forked(msgspec.Struct, frozen=True, tag="forked"):
    host: str
    incarnation: int
    pid: int
    error: str = ""


class Preloaded(msgspec.Struct, frozen=True, tag="preloaded"):
    """The nursery has imported its runtimes and can fork."""

    runtimes: tuple[str, ...]
    problems: tuple[str, ...] = ()


# --- supervisor -> host
class Live(msgspec.Struct, frozen=True, tag="live"):
    spec: HostSpec
    incarnation: int


# --- host -> supervisor
class Ready(msgspec.Struct, frozen=True, tag="ready"):
    report: LoadReport


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    error: str
    error_type: str


# --- supervisor -> host, worker, control
class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Finish what is in flight within ``grace`` seconds, then exit."""

    grace: float = 0.0


# --- supervisor -> worker
class WorkerInit(msgspec.Struct, frozen=True, tag="worker_init"):
    """The first message to a worker."""

    spec: WorkerSpec


# --- supervisor -> recorder
class RecorderInit(msgspec.Struct, frozen=True, tag="recorder_init"):
    """The first message to the recorder. ``run`` names the supervisor: the rings are its own."""

    spec: RecordsSpec
    runtime_dir: str
    run: str
    log_level: str
    log_format: str


class Push(msgspec.Struct, frozen=True, tag="push"):
    table: RouteTable


class Started(msgspec.Struct, frozen=True, tag="started"):
    """Every required model has been warm once: readiness no longer waits for all."""


class Unready(msgspec.Struct, frozen=True, tag="unready"):
    """Shutdown has begun: say so on the health routes, close connections after their answer."""


# --- worker -> supervisor
class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """The worker accepts connections."""


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The worker's loop turns."""


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    index: int
    revision: int


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """No request of this worker holds a revision of this model below ``revision``."""

    index: int
    revision: int
    slot: int = 0


class Wanted(msgspec.Struct, frozen=True, tag="wanted"):
    """A client asked for a version that is registered but not warm."""

    model: str
    version: str


class Tripped(msgspec.Struct, frozen=True, tag="tripped"):
    """A worker's breaker took the candidate of a test out of its route: take it out of every
    worker's (the supervisor sets *stable only* at once, then tells control). ``reason`` is a
    sentence; ``failures`` are the candidate's consecutive failures that it counted.
    """

    index: int
    test: str
    reason: str
    failures: int


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Windows that are complete. The supervisor numbers them and keeps them until control has
    saved them: worker -> supervisor with ``sequence`` 0, supervisor -> control with its own.
    """

    windows: list[Window]
    sequence: int = 0


# --- control -> supervisor
class CountedSaved(msgspec.Struct, frozen=True, tag="counted_saved"):
    """What was counted up to this sequence is saved: it need not be kept for another control."""

    sequence: int


class StartHost(msgspec.Struct, frozen=True, tag="start_host"):
    spec: HostSpec


class StopHost(msgspec.Struct, frozen=True, tag="stop_host"):
    host: str


class Publish(msgspec.Struct, frozen=True, tag="publish"):
    """Write, push, wait for acknowledgements (250 ms at most), store the word."""

    table: RouteTable


class StableOnly(msgspec.Struct, frozen=True, tag="stable_only"):
    index: int


class AllWarm(msgspec.Struct, frozen=True, tag="all_warm"):
    """Control has seen every required model warm."""


# --- supervisor -> control
class Published(msgspec.Struct, frozen=True, tag="published"):
    """The flip is done. Milliseconds: ``flip_ms`` is the store of the word, before which every
    request went one way and after which every request goes the other; ``publish_ms`` is from the
    writing of the table, through the wait for acknowledgements, to that store.
    """

    index: int
    revision: int
    flip_ms: float
    publish_ms: float
    acks: int
    workers: int
    error: str = ""


class HostChanged(msgspec.Struct, frozen=True, tag="host_changed"):
    state: HostState


class HostGone(msgspec.Struct, frozen=True, tag="host_gone"):
    """A host that was asked to stop has exited."""

    host: str


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """The supervisor's whole state, first message to control. ``run`` names this supervisor: the
    sequence of `Counted` is its own.
    """

    hosts: tuple[HostState, ...]
    tables: tuple[RouteTable, ...]
    workers: int
    started: bool
    nursery: tuple[str, ...]
    runtime_dir: str
    settings: bytes
    started_at: float
    supervisor_pid: int
    data_address: tuple[str, int]
    control_address: tuple[str, int]
    run: str = ""


class WorkersChanged(msgspec.Struct, frozen=True, tag="workers"):
    live: int


Message = (
    Fork | Preload | Forked | Preloaded | Live | Ready | Failed | Stop | Push | Started | Unready
    | Listening | Beat | Ack | Drained | Wanted | StartHost | StopHost | Publish | StableOnly
    | RecorderInit | Tripped | Counted | CountedSaved | WorkerInit | AllWarm | Published | HostChanged | HostGone | Snapshot | WorkersChanged
)  # fmt: skip

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode
