"""Between what a rollout wants to be seen of its candidate and the route table that shows it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hotswap.control.tables import references
from hotswap.core.evidence import Stage
from hotswap.core.rollout import Exposure, Rollout
from hotswap.core.routing import WHOLE, RouteTable, Split
from hotswap.ipc.messages import HostState


def needed(rollout: Rollout, exposure: Exposure | None) -> tuple[int, int]:
    """How many warm hosts of the candidate, and twins of stable, an exposure takes: for weight w
    as many as ceil(w x stable's instances).
    """
    if exposure is None:
        return 1, 0
    if exposure.pair:
        return rollout.instances, rollout.instances if exposure.twin else 0
    share = -(-exposure.weight * rollout.instances // WHOLE)
    return max(1, share), max(1, share) if exposure.twin else 0


def wanted(rollout: Rollout) -> tuple[int, int]:
    """Warm hosts of the candidate, and twins: for what is exposed, or for all before it is stable."""
    if rollout.status.state == "promoting":
        return rollout.instances, needed(rollout, rollout.status.exposure)[1]
    return needed(rollout, rollout.status.exposure)


def split_for(rollout: Rollout, exposure: Exposure, twins: Sequence[HostState]) -> Split:
    """The split of a table that shows the candidate so."""
    _, count = needed(rollout, exposure)
    assert rollout.stable is not None
    return Split(
        test=rollout.test,
        stage=exposure.stage,
        candidate=rollout.spec.version,
        baseline=rollout.stable,
        weight=exposure.weight,
        salt=rollout.status.salt,
        budget_ms=rollout.budget_ms,
        reserve_ms=rollout.reserve_ms,
        twin=references(twins[:count]) if exposure.twin else (),
        twin_weight=twin_weight(exposure),
        mirror=exposure.mirror,
        pair=exposure.pair,
        key_input=rollout.spec.key_input,
    )


def twin_weight(exposure: Exposure) -> int:
    """The share of the twins: the candidate's own. Of a pair they are the whole baseline."""
    return exposure.weight if exposure.twin and not exposure.pair else 0


def exposure_of(table: RouteTable | None, rollout: Rollout) -> Exposure | None:
    """What a table shows of this attempt's candidate; None for nothing."""
    if table is None or table.split is None or table.split.test != rollout.test:
        return None
    split = table.split
    return Exposure(
        stage=split.stage,
        weight=split.weight,
        twin=bool(split.twin),
        mirror=split.mirror,
        pair=split.pair,
        bake=split.candidate == table.stable,
    )


def stage_of(exposure: Exposure, warm_from: int) -> Stage:
    """The empty stage in which an exposure's requests are counted."""
    return Stage(
        number=exposure.stage,
        weight=exposure.weight,
        twin_weight=twin_weight(exposure),
        pair=exposure.pair,
        mirror=exposure.mirror,
        warm_from=warm_from,
    )
