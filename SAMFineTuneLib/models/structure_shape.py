"""What the examples of a fine-tune show of a structure's shape, kept in the card of the model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StructureShape(BaseModel):
    """One structure on the labelled slices that show it.

    Areas are in mm², in the plane of the slices.

    Attributes:
        label: its number.
        slices: how many labelled slices show it.
        parts: the most separate parts that one example shows: on one slice, or, where a slice
            between two labelled ones is known not to show it or it lies elsewhere on the next one,
            along the axis. Parts below a tenth of `usual_area` do not count.
        smallest_part: area of the smallest part.
        usual_area: median area of the structure on a slice.
    """

    model_config = ConfigDict(extra="ignore")

    label: int
    slices: int = Field(ge=1)
    parts: int = Field(ge=1)
    smallest_part: float = Field(ge=0, allow_inf_nan=False)
    usual_area: float = Field(ge=0, allow_inf_nan=False)
