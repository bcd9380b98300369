"""Loading is validating, in this process: for the embedded engine and for ``hotswap check``.

Nothing here needs a particular platform.
"""

from __future__ import annotations

import time
from pathlib import Path

from hotswap.core.signature import Signature
from hotswap.core.spec import Artifact, VersionSettings
from hotswap.ipc.messages import LoadReport
from hotswap.ports import Executor
from hotswap.serving.validation import validate


def load_version(
    artifact: Artifact,
    settings: VersionSettings,
    public: Signature | None,
    *,
    allow_unvalidated: bool,
) -> tuple[Executor, LoadReport]:
    """Verify the artifact's content, load it, run its samples, adapt it, warm it up.

    The report's ``memory_bytes`` is the artifact's size on disk: what it holds within this
    process cannot be told from the rest. Raises whatever is wrong with the version.
    """
    from hotswap.plugins import runtimes
    from hotswap.runtimes.samples import generated_samples, load_samples
    from hotswap.sources.manifest import verify

    began = time.monotonic()
    verify(artifact)
    runtime = runtimes()[artifact.runtime]
    executor = runtime.load(artifact, settings)
    try:
        samples = load_samples(Path(artifact.folder), settings, executor.signature)
        if samples is None:
            samples = generated_samples(executor.signature, 4)
        validated = validate(
            executor,
            samples,
            public,
            finite=settings.finite,
            allow_unvalidated=allow_unvalidated,
        )
    except BaseException:
        executor.close()
        raise
    report = LoadReport(
        signature=validated.signature,
        platform=runtime.platform,
        load_seconds=time.monotonic() - began - validated.warm_seconds,
        warm_seconds=validated.warm_seconds,
        steady_seconds=validated.steady_seconds,
        memory_bytes=sum(entry.size for entry in artifact.manifest),
        warnings=validated.warnings,
    )
    return validated.executor, report
