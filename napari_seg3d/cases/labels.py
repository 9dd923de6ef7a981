"""Label schemes and regions: explicit tables, both ways.

The same number means different things in different editions: {1, 2, 3} has four readings among the brain tumour data
sets. So the published schemes are written down here, and nested regions (whole tumour ⊃ tumour core ⊃ enhancing tumour)
follow from what the names mean, never from the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import LabelError
from ..volumes.volume import Label, LabelTable

WHOLE, CORE, ENHANCING = "whole tumour", "tumour core", "enhancing tumour"


@dataclass(frozen=True)
class Scheme:
    """One published meaning of label values: a key for files and commands, a title for people, the table."""

    key: str
    title: str
    table: LabelTable


@dataclass(frozen=True)
class Region:
    """A set of labels that is learned and scored as one.

    Parameters
    ----------
    name : str
        For example ``"tumour core"``.
    values : tuple of int
        The label values it unites, ascending.
    color : str
        ``#rrggbb``.
    written : int, optional
        The label that `labels_from_regions` writes where this region is the innermost one. By default the smallest
        value that no region inside this one holds.
    """

    name: str
    values: tuple[int, ...]
    color: str
    written: int | None = None

    def __post_init__(self) -> None:
        values = tuple(sorted(set(self.values)))
        if not values or values[0] < 1:
            raise LabelError(f"Expected label values above 0 in the region {self.name}, got {self.values}.")
        if self.written is not None and self.written not in values:
            raise LabelError(
                f"The region {self.name} {values} cannot be written as {self.written}, which it does not hold."
            )
        object.__setattr__(self, "values", values)

    @classmethod
    def named(cls, name: str, values: Iterable[int], written: int | None = None) -> Region:
        """Return a region with the colour that its name calls for."""
        values = tuple(sorted(set(values)))
        return cls(name, values, Label.named(max(values, default=1), name).color, written)


def _scheme(key: str, title: str, *names: str) -> Scheme:
    return Scheme(key, title, LabelTable.from_names({i + 1: name for i, name in enumerate(names) if name}))


_CORE = "necrotic and non-enhancing core"
BRATS_2012_2016 = _scheme(
    "brats-2012-2016", "BraTS 2012 to 2016", "necrosis", "oedema", "non-enhancing tumour", "enhancing tumour"
)
BRATS_2017_2022 = _scheme("brats-2017-2022", "BraTS 2017 to 2022", _CORE, "oedema", "", "enhancing tumour")
BRATS_CONSECUTIVE = _scheme(
    "brats-consecutive", "BraTS 2017 to 2022, numbered 1 to 3", _CORE, "oedema", "enhancing tumour"
)
BRATS_2023 = _scheme("brats-2023", "BraTS 2023", _CORE, "oedema", "enhancing tumour")
BRATS_2024 = _scheme(
    "brats-2024", "BraTS 2024 after treatment", _CORE, "oedema", "enhancing tumour", "resection cavity"
)
BRATS_PEDS_2024 = _scheme(
    "brats-peds-2024", "BraTS-PEDs 2024", "enhancing tumour", "non-enhancing tumour", "cystic component", "oedema"
)
BRATS_MEN_RT = _scheme("brats-men-rt", "BraTS-MEN-RT 2024", "gross tumour volume")
MSD_BRAIN_TUMOUR = _scheme("msd-task01", "Decathlon Task01", "oedema", "non-enhancing tumour", "enhancing tumour")
NNUNET_BRATS = _scheme("nnunet-brats", "nnU-Net's BraTS 2018 to 2021", "oedema", _CORE, "enhancing tumour")
HIPPOCAMPUS = _scheme("msd-task04", "Decathlon Task04", "Anterior", "Posterior")
ISEG = Scheme("iseg", "iSeg 2017 and 2019", LabelTable.from_names({10: "CSF", 150: "grey matter", 250: "white matter"}))
MRBRAINS18 = _scheme(
    "mrbrains18", "MRBrainS18", "cortical grey matter", "basal ganglia", "white matter", "white matter lesions",
    "CSF outside the brain", "ventricles", "cerebellum", "brain stem", "infarction", "other",
)  # fmt: skip

SCHEMES: tuple[Scheme, ...] = (
    BRATS_2012_2016, BRATS_2017_2022, BRATS_CONSECUTIVE, BRATS_2023, BRATS_2024, BRATS_PEDS_2024, BRATS_MEN_RT,
    MSD_BRAIN_TUMOUR, NNUNET_BRATS, HIPPOCAMPUS, ISEG, MRBRAINS18,
)  # fmt: skip

#: What the name of a tumour's part means; searched in this order ("non-enhancing" before "enhancing").
_PARTS: tuple[tuple[str, str], ...] = (
    (r"resection|cavity|\brc\b", "cavity"),
    (r"cyst|\bcc\b", "cyst"),
    (r"non.?enhancing|\bnetc?\b", "non-enhancing"),
    (r"necro|\bncr\b|tumou?r core|^core$", "necrosis"),
    (r"o?edema|\bed\b|snfh", "oedema"),
    (r"enhancing|\bet\b", "enhancing"),
)


def regions_for(table: LabelTable) -> tuple[Region, ...] | None:
    """Return the nested regions of a brain tumour's labels, outer to inner, or None if the names do not tell them.

    Whole tumour is every part but a resection cavity, tumour core is that without oedema; a cavity is a region of its
    own (BraTS, Menze et al. 2015, doi:10.1109/TMI.2014.2377694, and its later editions).

    Examples
    --------
    >>> [(region.name, region.values) for region in regions_for(MSD_BRAIN_TUMOUR.table)]
    [('whole tumour', (1, 2, 3)), ('tumour core', (2, 3)), ('enhancing tumour', (3,))]
    >>> regions_for(HIPPOCAMPUS.table) is None
    True
    """
    parts = {label.value: _part(label.name) for label in table}
    if "enhancing" not in parts.values() or "oedema" not in parts.values() or None in parts.values():
        return None
    whole = [value for value, part in parts.items() if part != "cavity"]
    core = [value for value in whole if parts[value] != "oedema"]
    enhancing = [value for value in core if parts[value] == "enhancing"]
    # Necrosis and cyst cannot be told from the solid core once they are one region: the solid core is the likelier.
    solid = [value for value in core if parts[value] == "non-enhancing"]
    regions = [Region.named(WHOLE, whole)]
    if core != enhancing:
        regions.append(Region.named(CORE, core, written=solid[0] if solid else None))
    regions.append(Region.named(ENHANCING, enhancing))
    regions += [Region.named(table[value].name, (value,)) for value, part in parts.items() if part == "cavity"]
    return tuple(regions)


def regions_from_labels(data: NDArray[np.integer], regions: Sequence[Region]) -> NDArray[np.bool_]:
    """Return the mask of each region.

    Parameters
    ----------
    data : (X, Y, Z) ndarray
        Unsigned label values; values in no region are background.
    regions : sequence of R Region

    Returns
    -------
    (R, X, Y, Z) bool ndarray
    """
    masks = np.zeros((len(regions), *data.shape), dtype=bool)
    for mask, region in zip(masks, regions, strict=True):
        for value in region.values:
            mask |= data == value
    return masks


def labels_from_regions(
    masks: NDArray[np.bool_], regions: Sequence[Region], table: LabelTable
) -> NDArray[np.unsignedinteger]:
    """Return the labels that region masks stand for, in the scheme's own values.

    Nesting is enforced first (`enforce_nesting`); then each region is written from outer to inner with its own value.
    Where a region unites several labels that no inner region tells apart, one value stands for all (`merged_values`).

    Parameters
    ----------
    masks : (R, X, Y, Z) bool ndarray
    regions : sequence of R Region
    table : LabelTable
        The labels that may be written.

    Returns
    -------
    (X, Y, Z) ndarray
        Of the smallest unsigned type that holds every value of `table`.

    Raises
    ------
    LabelError
        If a region writes a value that is not in `table`, or has no value of its own.
    """
    written = [_written(region, regions) for region in regions]
    if strangers := sorted(set(written) - set(table.values)):
        raise LabelError(
            f"The regions write the labels {strangers}, but the label table has only {list(table.values)}."
        )
    labels = np.zeros(masks.shape[1:], dtype=np.min_scalar_type(max(table.values)))
    nested = enforce_nesting(masks, regions)
    for i in _outer_first(regions):
        labels[nested[i]] = written[i]
    return labels


def enforce_nesting(masks: NDArray[np.bool_], regions: Sequence[Region]) -> NDArray[np.bool_]:
    """Return the masks with every inner region cut to the regions around it; the input is left as it is.

    Parameters
    ----------
    masks : (R, X, Y, Z) bool ndarray
    regions : sequence of R Region
        A region lies inside another when its values are a part of the other's.
    """
    nested = masks.copy()
    for i in _outer_first(regions):
        for j in range(len(regions)):
            if set(regions[i].values) < set(regions[j].values):
                nested[i] &= nested[j]
    return nested


def merged_values(regions: Sequence[Region]) -> tuple[int, ...]:
    """Label values that do not come back from labels to regions to labels: another one is written in their place.

    Examples
    --------
    >>> merged_values(regions_for(BRATS_2012_2016.table)), merged_values(regions_for(BRATS_2023.table))
    ((1,), ())
    """
    own = [set(_own_values(region, regions)) - {_written(region, regions)} for region in regions]
    return tuple(sorted(set().union(*own)))


def _part(name: str) -> str | None:
    for pattern, part in _PARTS:
        if re.search(pattern, name.replace("_", " "), re.IGNORECASE):
            return part
    return None


def _outer_first(regions: Sequence[Region]) -> list[int]:
    return sorted(range(len(regions)), key=lambda i: -len(regions[i].values))


def _own_values(region: Region, regions: Sequence[Region]) -> tuple[int, ...]:
    inner = {value for other in regions if set(other.values) < set(region.values) for value in other.values}
    return tuple(value for value in region.values if value not in inner)


def _written(region: Region, regions: Sequence[Region]) -> int:
    if region.written is not None:
        return region.written
    own = _own_values(region, regions)
    if not own:
        raise LabelError(
            f"The region {region.name} has no label of its own: the regions inside it hold all of {region.values}."
        )
    return own[0]
