"""What all settings have in common: frozen, checked, and refusing what they do not know."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Voxels = tuple[
    Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=1024)]
]
Millimetres = tuple[
    Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(gt=0, le=100)]
]
Probability = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Frozen settings that refuse what they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
