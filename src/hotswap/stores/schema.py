"""The tables of the SQL stores, as SQLAlchemy knows them; made and changed by ``migrations/``.

Imported only by what is about to use SQLAlchemy.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, Text

HEAD: Final = "0001"
"""The newest migration: what a store's schema must be at before it is used."""

metadata = MetaData()

documents = Table(
    "documents",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # NULL once deleted: the row stays, so that a generation is never given twice.
    Column("value", LargeBinary, nullable=True),
    Column("generation", BigInteger, nullable=False),
)
