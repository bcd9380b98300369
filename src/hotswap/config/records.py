"""Settings of what is kept of predictions, and how it is watched for drift."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from hotswap.config.values import Count, Names, PositiveSeconds, Share, fsspec_place
from hotswap.core.drift_views import DriftSettings


class RecordsSettings(BaseModel):
    """Settings of what is kept of predictions, and how it is watched for drift."""

    records: Literal["on", "off"] = Field(
        "on",
        description="Keep what was predicted, in the state directory: for reports, labels, drift "
        "and replays. `off` keeps nothing, and takes no labels.",
    )
    records_share: Share = Field(
        1.0, description="Share of the answered requests that are recorded, 0 to 1, at random."
    )
    records_inputs: Names = Field(
        ("all",),
        description="Inputs that are recorded: `all`, `none`, or the names of columns.",
    )
    records_input_share: Share = Field(
        1.0, description="Share of the recorded requests that are recorded with their inputs."
    )
    records_redact: Names = Field((), description="Inputs that are never recorded.")
    records_hash: Names = Field(
        (),
        description="Inputs of which only a keyed hash is recorded: equal values can be told, none "
        "can be read.",
    )
    records_days: Annotated[PositiveSeconds, Field(le=36500)] = Field(
        30.0, description="Days that records and labels are kept."
    )
    records_mb: Count = Field(
        2048,
        description="Most MiB that compacted records and labels may take together; the oldest go "
        "first.",
    )
    records_url: Annotated[str, AfterValidator(fsspec_place)] | None = Field(
        None,
        repr=False,
        description="Where compacted records and labels are kept, as fsspec names it, such as "
        "s3://bucket/prefix. Default: in the state directory.",
    )
    drift_seconds: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = Field(
        300.0,
        description="How often new records are held against the drift reference; 0 watches for no "
        "drift.",
    )
    drift_tolerance: Annotated[float, Field(ge=0.001, le=0.9)] = Field(
        0.1,
        description="How far a share of an input's or an output's values may be from the "
        "reference's without being called drift, 0.001 to 0.9.",
    )
    drift_reference_rows: Annotated[int, Field(ge=500, le=1_000_000)] = Field(
        5000,
        description="Rows that the drift reference is frozen from: take as many as a day has, or a "
        "week, where the hour or the day changes what is asked.",
    )
    drift_columns: Names = Field(
        (), description="Inputs and outputs that are watched for drift. Default: all."
    )
    drift_rows: Literal["one", "all"] = Field(
        "one",
        description="Rows of a request that count for drift: `one`, whatever they have in common, or "
        "`all`, where rows of a request are as independent as requests are.",
    )

    def _refuse_records(self) -> None:
        both = set(self.records_redact) & set(self.records_hash)
        if both:
            raise ValueError(f"records_redact and records_hash both name {min(both)!r}: choose one")
        for word in ("all", "none"):
            if word in self.records_inputs and len(self.records_inputs) > 1:
                raise ValueError(f"records_inputs is {word!r} or names of columns, not both")
        if self.records == "off":
            for name, field in type(self).model_fields.items():
                if name.startswith(("records_", "drift_")) and getattr(self, name) != field.default:
                    raise ValueError(f"{name} is given, and records is off: leave one out")
        for name, field in type(self).model_fields.items():
            given = name.startswith("drift_") and getattr(self, name) != field.default
            if given and self.drift_seconds == 0 and name != "drift_seconds":
                raise ValueError(f"{name} is given, and drift_seconds is 0: leave one out")

    def drift(self) -> DriftSettings | None:
        """How records are watched for drift, None for not at all."""
        if self.drift_seconds == 0:
            return None
        return DriftSettings(
            seconds=self.drift_seconds,
            tolerance=self.drift_tolerance,
            rows=self.drift_reference_rows,
            columns=self.drift_columns,
            one_row=self.drift_rows == "one",
            slice_seconds=min(60.0, self.drift_seconds),
        )


__all__ = ["RecordsSettings"]
