"""Several raters of one dataset: how far they agree, and a consensus of two of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cases.corrections import Correction, versions
from ..comparison.tables import cell
from ..errors import GeometryError
from ..volumes.files import read_label_map
from ..volumes.volume import LabelMap, LabelTable
from .queue import Agreement, agreement

#: What a version without a name in it is by.
NOBODY = "unknown"


@dataclass(frozen=True)
class Pair:
    """Two raters' newest versions of one case, and how far they agree."""

    case_id: str
    raters: tuple[str, str]
    versions: tuple[Correction, Correction]
    agreement: Agreement = field(repr=False)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels; 1 where neither has any."""
        dices = list(self.agreement.by_label.values())
        return float(np.mean(dices)) if dices else 1.0


def newest_by_rater(folder: Path, case_id: str) -> Mapping[str, Correction]:
    """Return the newest version of a case by each rater, the names in alphabetical order.

    A consensus, and what was made from one, is nobody's own and left out.

    Parameters
    ----------
    folder : Path
        The folder of the corrections.

    Raises
    ------
    DatasetError
        If a sidecar is damaged.
    """
    found: dict[str, Correction] = {}
    shared: set[str] = set()
    for version in versions(folder, case_id):
        name = version.path.relative_to(folder).as_posix()
        if len(version.parents) > 1 or version.parent in shared:
            shared.add(name)
        else:
            found[version.author or NOBODY] = version
    return dict(sorted(found.items()))


def compare_raters(folder: Path, case_id: str, table: LabelTable | None = None) -> Iterator[Pair]:
    """Yield every two raters of a case, compared.

    Parameters
    ----------
    folder : Path
        The folder of the corrections.
    case_id : str
    table : LabelTable, optional
        Names of the labels.

    Raises
    ------
    DatasetError
        If a sidecar is damaged.
    FileError, GeometryError
        If a version cannot be read, or two do not lie on one grid.
    """
    newest = newest_by_rater(folder, case_id)
    maps: dict[str, LabelMap] = {}
    for one, other in combinations(newest, 2):
        for rater in (one, other):
            if rater not in maps:
                maps[rater] = read_label_map(newest[rater].path, table)
        yield Pair(case_id, (one, other), (newest[one], newest[other]), agreement(maps[one], maps[other]))


def as_csv(pairs: Iterable[Pair]) -> str:
    """Return a table with one row for each case, pair of raters and label.

    Cells that a spreadsheet would take for a formula are made harmless by a leading apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for pair in pairs:
        found = pair.agreement
        for label, dice in found.by_label.items():
            values = (
                pair.case_id,
                *pair.raters,
                *(version.path.name for version in pair.versions),
                label,
                dice,
                found.first_ml.get(label, 0.0),
                found.second_ml.get(label, 0.0),
                found.kappa,
            )
            writer.writerow([cell(value) for value in values])
    return text.getvalue()


_COLUMNS = (
    "case", "rater_1", "rater_2", "version_1", "version_2", "label", "dice", "volume_1_ml", "volume_2_ml", "kappa"
)  # fmt: skip


def consensus(raters: Sequence[LabelMap]) -> tuple[LabelMap, NDArray[np.bool_]]:
    """Begin a consensus: what all raters agree on stays, the rest is left to decide.

    Parameters
    ----------
    raters : sequence of LabelMap
        On one grid; at least one.

    Returns
    -------
    LabelMap
        A copy: where they disagree, it has the first rater's label until somebody decides.
    (X, Y, Z) bool ndarray
        Where they disagree.

    Raises
    ------
    GeometryError
        If the maps do not lie on one grid.

    Examples
    --------
    >>> from napari_seg3d.volumes.geometry import Geometry
    >>> grid = Geometry((1, 1, 4), np.eye(4))
    >>> one, other = (LabelMap(np.array([[row]], np.uint8), grid) for row in ([0, 1, 2, 2], [0, 1, 1, 0]))
    >>> begun, open_ = consensus([one, other])
    >>> begun.data[0, 0].tolist(), open_[0, 0].tolist()
    ([0, 1, 2, 2], [False, False, True, True])
    """
    first = raters[0]
    undecided = np.zeros(first.data.shape, np.bool_)
    for other in raters[1:]:
        if difference := first.geometry.difference(other.geometry):
            raise GeometryError(f"A consensus needs label maps on one grid ({difference}).")
        undecided |= first.data != other.data
    # Labels of the others must fit in, too.
    dtype: Any = np.result_type(*(one.data.dtype for one in raters))
    begun = first.with_data(np.array(first.data, dtype, order="K"))
    return LabelMap(begun.data, first.geometry, _covering(raters), first.name, first.source), undecided


def _covering(raters: Sequence[LabelMap]) -> LabelTable:
    known = {label.value: label for one in reversed(raters) for label in one.table}
    return LabelTable(tuple(known[value] for value in sorted(known)))
