"""Two kinds of image: intensities (`Volume`) and integers with meanings (`LabelMap`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, LabelError
from .geometry import Geometry

#: Colours belong to meanings: a class looks the same in truth, prediction and every figure. Searched in this order.
MEANINGS: tuple[tuple[str, str], ...] = (
    (r"non.?enhancing|\bnet\b|tumou?r core|\btc\b", "#e6402e"),
    (r"o?edema|whole tumou?r|\bwt\b|\bed\b|snfh", "#f7d038"),
    (r"enhancing|\bet\b", "#49c6f2"),
    (r"necro|\bncr\b", "#3fa34d"),
    (r"resection|cavity", "#d64fd6"),
    (r"anterior", "#f28e2b"),
    (r"posterior", "#17becf"),
    (r"\bcsf\b|ventric", "#4169e1"),
    (r"gr[ae]y|\bgm\b", "#8fae8b"),
    (r"white|\bwm\b", "#f0ece0"),
)
#: For classes whose name says nothing; distinct for colour-blind readers (Okabe and Ito 2008, then Tableau).
PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#9467bd", "#8c564b", "#bcbd22", "#7fbf7b", "#af8dc3", "#fdb863", "#b2abd2",
)  # fmt: skip


@dataclass(frozen=True)
class Label:
    """One class: its value in the array, its name, its colour as ``#rrggbb``."""

    value: int
    name: str
    color: str

    @classmethod
    def named(cls, value: int, name: str) -> Label:
        """Return a label with the colour that its name, or else its value, calls for."""
        for pattern, color in MEANINGS:
            if re.search(pattern, name.replace("_", " "), re.IGNORECASE):
                return cls(value, name, color)
        return cls(value, name, PALETTE[(value - 1) % len(PALETTE)])

    @property
    def rgb(self) -> tuple[float, float, float]:
        """Red, green, blue from 0 to 1."""
        red, green, blue = (int(self.color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return red, green, blue


@dataclass(frozen=True)
class LabelTable:
    """The foreground classes of a label map, in order of value. Background (0) is not listed.

    Raises
    ------
    LabelError
        If a value is not positive or comes twice.
    """

    labels: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        values = [label.value for label in self.labels]
        if any(value < 1 for value in values) or len(set(values)) < len(values):
            raise LabelError(f"Expected label values above 0, each once, got {values}.")
        object.__setattr__(self, "labels", tuple(sorted(self.labels, key=lambda label: label.value)))

    @classmethod
    def from_names(cls, names: Mapping[int, str]) -> LabelTable:
        """Table from value -> name; background (value 0) is left out, colours follow the names."""
        return cls(tuple(Label.named(int(value), name) for value, name in names.items() if int(value) != 0))

    @classmethod
    def from_values(cls, values: Iterable[int]) -> LabelTable:
        """Table for values of which nothing is known but the number."""
        return cls.from_names({int(value): f"label {int(value)}" for value in values if int(value) != 0})

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, value: int) -> Label:
        for label in self.labels:
            if label.value == value:
                return label
        raise KeyError(value)

    @property
    def values(self) -> tuple[int, ...]:
        """All label values, ascending."""
        return tuple(label.value for label in self.labels)

    def covering(self, values: Iterable[int]) -> LabelTable:
        """Return this table with an entry for every other value in `values`."""
        more = [v for v in LabelTable.from_values(values) if v.value not in self.values]
        return LabelTable((*self.labels, *more)) if more else self


@dataclass(frozen=True)
class Source:
    """What a volume's file held besides the voxels, so that the same file can be written again.

    `header` is everything before the voxel block (header, extensions, padding), `trailer` everything after it; both are
    kept byte for byte. `stored_dtype` is numpy's string with byte order, for example ``">i2"``. `holds_labels` tells a
    label file's source from an image's: only the former may lend its whole header to a label map, an image's carries a
    scaling and a patient's data along. `notes` are sentences on what is odd about the file though readable.
    """

    path: str
    format: str
    header: bytes = field(repr=False)
    trailer: bytes = field(repr=False)
    stored_dtype: str
    size: int
    mtime_ns: int
    holds_labels: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a grid.

    Parameters
    ----------
    data : (X, Y, Z) ndarray
        Real numbers.
    geometry : Geometry
        Its shape is that of `data`.
    name : str
        Modality or file name.
    """

    data: NDArray[Any]
    geometry: Geometry
    name: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        _check_shape(self.data, self.geometry)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Integers with meanings on a grid.

    Parameters
    ----------
    data : (X, Y, Z) ndarray
        Integers; uint8 wherever the values fit. 0 is background.
    geometry : Geometry
        Its shape is that of `data`.
    table : LabelTable
        Names and colours of the values; values that are not listed get plain entries.
    """

    data: NDArray[Any]
    geometry: Geometry
    table: LabelTable = field(default_factory=LabelTable)
    name: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        _check_shape(self.data, self.geometry)
        if self.data.dtype.kind not in "iu":
            raise LabelError(f"Expected integers in a label map, got {self.data.dtype}.")

    def with_data(self, data: NDArray[Any]) -> LabelMap:
        """Return the same map with other voxels of the same shape."""
        return replace(self, data=data)

    def volume_ml(self, value: int) -> float:
        """Volume of one class in millilitres."""
        return float(np.count_nonzero(self.data == value)) * self.geometry.voxel_volume_ml


def distinct_values(data: NDArray[Any]) -> NDArray[Any]:
    """Return the different values of an array, ascending, in its type.

    Ten times faster than `numpy.unique` where values are small integers, as labels are.

    Examples
    --------
    >>> distinct_values(np.array([[0, 4], [2, 4]], np.uint8)).tolist()
    [0, 2, 4]
    """
    if data.dtype.kind not in "iu" or data.size == 0 or data.min() < 0 or data.max() >= 1 << 20:
        return np.unique(data)
    # Order "K" reads the voxels as they lie in memory, whichever axis comes first there.
    values = data.ravel(order="K")
    if data.dtype.itemsize == 1:
        # Most of a label map is background: eight voxels at a time are looked at for anything else.
        whole = len(values) // 8 * 8
        words = values[:whole].view(np.uint64)
        other = np.concatenate([words[words != 0].view(data.dtype), values[whole:]])
        counts = np.bincount(other, minlength=1)
        counts[0] = values.size - (other.size - counts[0])
        return np.flatnonzero(counts).astype(data.dtype)
    return np.flatnonzero(np.bincount(values)).astype(data.dtype)


def _check_shape(data: NDArray[Any], geometry: Geometry) -> None:
    if data.shape != geometry.shape:
        raise GeometryError(f"Expected voxels of shape {geometry.shape}, got {data.shape}.")
