"""The records that a report is of, and what else must be known to join labels with them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hotswap.records import dataset, files
from hotswap.records.dataset import Opened

#: Ids are looked for in records of so many seconds before and after, too: a label of one that is
#: there as well may be meant for either.
AROUND: Final = 86400.0


def open_window(
    root: Path,
    model: str,
    since: float | None,
    until: float | None,
    *,
    location: str | None = None,
    verify: bool = False,
) -> Opened:
    """As `hotswap.records.dataset.open`; ``labelled`` leaves out ids that are carried by requests
    around that time, too.
    """
    opened = dataset.open(
        root, model, since=None if since is None else since - AROUND,
        until=None if until is None else until + AROUND, location=location, verify=verify,
    )  # fmt: skip
    tests = []
    if since is not None:
        tests.append(f"epoch_us(time) >= {int(since * 1e6)}")
    if until is not None:
        tests.append(f"epoch_us(time) < {int(until * 1e6)}")
    if tests:
        try:
            opened.sql.execute(_RECORDS.format(where=" AND ".join(tests)))
            opened.sql.execute(_LABELLED)
        except BaseException:
            opened.close()
            raise
    return opened


_RECORDS: Final = "CREATE OR REPLACE VIEW records AS SELECT * FROM all_records WHERE {where}"
_LABELLED: Final = """
CREATE OR REPLACE VIEW labelled AS
WITH repeated AS (
  SELECT request_id, "row" FROM all_records SEMI JOIN labels USING (request_id, "row")
  GROUP BY ALL HAVING count(*) > 1)
SELECT r.*, l.label, l.label_text, l.reward, l.received
FROM records r JOIN labels l ON r.request_id = l.request_id AND r."row" = l."row"
ANTI JOIN repeated d ON d.request_id = r.request_id AND d."row" = r."row"
"""


def is_all(
    root: Path, model: str, since: float | None, until: float | None, location: str | None = None
) -> bool:
    """Whether no label can be meant for anything else that is recorded here."""
    if since is not None or until is not None:
        return False
    return set(files.models(root, files.Location(root, location))) <= {model}


__all__ = ["AROUND", "is_all", "open_window"]
