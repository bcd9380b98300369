"""Formula F10: do the outcomes arrive in the proportion in which requests were assigned?

Compare the coin with the outcomes that were received: a share that does not fit means lost or
doubled records (a sample-ratio mismatch), and then no other comparison of the arms can be
trusted. The usual level is 0.001.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from hotswap.stats.rate import odds_evidence


class SplitCell(NamedTuple):
    """One stage: the candidate's probability, the outcomes of both arms, the candidate's."""

    rho: float
    total: int
    candidate: int


_LOST: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
#: The odds of the candidate are bet to be so many times those of the coin.
ODDS: Final = _LOST + tuple(1.0 / factor for factor in reversed(_LOST))


def evidence(cells: Sequence[SplitCell]) -> float:
    """Log evidence against 'the candidate's share of the outcomes is its probability'.

    Multiplied across stages, as in `hotswap.stats.rate`; no data: 0. Raises ValueError for
    counts or probabilities that cannot be. Lindon & Malek, "Anytime-valid inference for
    multinomial count data" (2022), with a grid of odds that is shared by the stages.

    >>> evidence([SplitCell(rho=0.5, total=20_000, candidate=9_000)]) > math.log(1000)
    True
    """
    return odds_evidence(cells, 1.0, ODDS)


def beta_mixture_evidence(total: int, candidate: int, rho: float, k: float = 1000.0) -> float:
    """The same for one stage, with shares drawn from Beta(k rho, k (1 - rho)) as alternatives.

    Lindon & Malek (2022), the Dirichlet-multinomial mixture for two arms; ``k`` > 0 says how near
    to ``rho`` the alternatives lie. Raises ValueError for counts or values that cannot be.

    >>> round(beta_mixture_evidence(100_000, 900, 0.01), 4)
    2.9083
    """
    if not (0 <= candidate <= total and 0.0 < rho < 1.0 and 0.0 < k < math.inf):
        raise ValueError(
            "a split has 0 <= candidate <= total, a probability strictly between 0 and 1 and a "
            f"positive k, not {(total, candidate, rho, k)}"
        )
    a, b, others = k * rho, k * (1.0 - rho), total - candidate
    return (
        (math.lgamma(a + candidate) - math.lgamma(a))
        + (math.lgamma(b + others) - math.lgamma(b))
        - (math.lgamma(k + total) - math.lgamma(k))
        - candidate * math.log(rho)
        - others * math.log1p(-rho)
    )
