"""One case: named modalities, and perhaps a truth and a mask, on one checked grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError, GeometryError, LabelError
from ..volumes.files import read_label_map, read_volume
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, LabelTable, Volume
from .checked import VoxelBox, read_checked


@dataclass(frozen=True)
class ImageFile:
    """Where one modality lies: a file, and the channel if the file is 4-D (X, Y, Z, channel)."""

    path: Path
    channel: int | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A case in memory.

    Parameters
    ----------
    id : str
        Unique in its dataset.
    modalities : mapping of str to Volume
        At least one, all on one grid; the order is the display order.
    truth : LabelMap, optional
        On the same grid.
    mask : (X, Y, Z) bool ndarray, optional
        Where the organ is, for example a brain mask.
    checked : tuple of VoxelBox, optional
        The parts of the truth that a person has looked at; None: all of it.

    Raises
    ------
    GeometryError
        If two images lie on different grids; the message names both and the difference.
    """

    id: str
    modalities: Mapping[str, Volume]
    truth: LabelMap | None = None
    mask: NDArray[np.bool_] | None = None
    files: CaseFiles | None = None
    checked: tuple[VoxelBox, ...] | None = None

    def __post_init__(self) -> None:
        if not self.modalities:
            raise DatasetError(f"Case {self.id} has no image. Give it at least one modality.")
        for name, volume in self.modalities.items():
            self._check_grid(volume.geometry, name)
        if self.truth is not None:
            self._check_grid(self.truth.geometry, "the truth")
        if self.mask is not None and self.mask.shape != self.geometry.shape:
            raise GeometryError(
                f"Case {self.id}: the mask has shape {self.mask.shape}, the images {self.geometry.shape}."
            )

    def _check_grid(self, geometry: Geometry, name: str) -> None:
        if difference := self.geometry.difference(geometry):
            first = next(iter(self.modalities))
            raise GeometryError(
                f"Case {self.id}: {name} does not lie on the grid of {first} ({difference}). "
                "Register and resample them onto one grid first."
            )

    @property
    def geometry(self) -> Geometry:
        """The grid of all its images: that of the first modality."""
        return next(iter(self.modalities.values())).geometry

    def load(self) -> Case:
        """Return itself: a case in memory can stand wherever `CaseFiles` can."""
        return self


@dataclass(frozen=True)
class CaseFiles:
    """A case on disk: which files hold what. Nothing is read until `load`."""

    id: str
    modalities: Mapping[str, ImageFile]
    truth: Path | None = None
    mask: Path | None = None
    table: LabelTable = field(default_factory=LabelTable)
    patient: str = ""
    #: A corrected label map, preferred over `truth`.
    corrected: Path | None = None

    @property
    def best_truth(self) -> Path | None:
        """The corrected label map if there is one, else the truth."""
        return self.corrected or self.truth

    def load(self) -> Case:
        """Read all its files, the corrected truth rather than the older one.

        Raises
        ------
        FileError, GeometryError, LabelError
            With the case's name or the file's in the message.
        """
        volumes = {name: read_volume(file.path, channel=file.channel) for name, file in self.modalities.items()}
        truth = None if self.best_truth is None else read_label_map(self.best_truth, self.table)
        checked = None if self.best_truth is None else read_checked(self.best_truth)
        case = Case(self.id, volumes, truth, None, self, checked)
        return case if self.mask is None else replace(case, mask=self.read_mask(self.mask, case.geometry))

    def read_mask(self, path: Path, geometry: Geometry) -> NDArray[np.bool_]:
        """Return where a mask's file says that the organ is.

        Raises
        ------
        FileError, GeometryError, LabelError
            If the file is unreadable, on another grid, or holds more than two values.
        """
        volume = read_volume(path)
        if difference := geometry.difference(volume.geometry):
            raise GeometryError(f"Case {self.id}: the mask does not lie on the grid of the images ({difference}).")
        values: NDArray[Any] = volume.data
        inside = values > 0.5
        # Masks are stored as 0 and 1, as 0.99999997 after somebody's float arithmetic, or as 0 and 255.
        high = values.max(initial=0) or 1
        if high < 0.5 or np.abs(values / high - inside).max(initial=0) > 1e-3:
            raise LabelError(f"Expected only 0 and one other value in the mask {path.name}; it looks like an image.")
        return inside
