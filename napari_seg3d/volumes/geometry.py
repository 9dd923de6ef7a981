"""Where voxels lie in the patient: all axis conventions, once.

Arrays are (X, Y, Z) in the file's own voxel order, as nibabel gives them. World coordinates are RAS+ millimetres (x
grows to the patient's right, y to anterior, z to superior). ``affine_voxel_to_world`` maps voxel centres,
homogeneous, to world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import ArrayLike, NDArray

from ..errors import GeometryError

#: Two grids are the same when no voxel centre is further apart than this part of the smallest spacing.
SAME_GRID_FRACTION = 0.02


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume.

    Parameters
    ----------
    shape : (int, int, int)
        Number of voxels along X, Y, Z; each at least 1.
    affine_voxel_to_world : (4, 4) array_like
        Finite and invertible; copied as read-only float64.

    Raises
    ------
    GeometryError
        If the shape is not three positive integers or the affine is not a finite, invertible (4, 4) matrix.

    Examples
    --------
    >>> import numpy as np
    >>> Geometry((4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0])).spacing_mm
    (2.0, 2.0, 3.0)
    """

    shape: tuple[int, int, int]
    affine_voxel_to_world: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"Expected a shape of three positive sizes, got {shape}.")
        affine = np.array(self.affine_voxel_to_world, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GeometryError(f"Expected a (4, 4) affine, got {affine.shape}.")
        if not np.isfinite(affine).all():
            raise GeometryError("The affine holds NaN or infinity, so the place of the voxels is unknown.")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"Expected an affine whose last row is 0 0 0 1, got {affine[3]}.")
        # Absurd numbers overflow to infinity, which is told in words.
        with np.errstate(over="ignore"):
            sizes = voxel_sizes(affine)
        if not np.isfinite(sizes).all():
            raise GeometryError("The affine holds absurdly large numbers, so the place of the voxels is unknown.")
        # The determinant relative to the voxel sizes: independent of the unit, 1 for perpendicular axes.
        if min(sizes) <= 0 or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-4:
            raise GeometryError("The affine is singular: two voxel axes point the same way or one has no length.")
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine_voxel_to_world", affine)

    @classmethod
    def with_spacing(cls, shape: tuple[int, int, int], spacing_mm: ArrayLike = (1.0, 1.0, 1.0)) -> Geometry:
        """Return a straight RAS grid with its first voxel at the origin."""
        return cls(shape, np.diag([*np.asarray(spacing_mm, dtype=np.float64), 1.0]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine_voxel_to_world, other.affine_voxel_to_world)

    def __hash__(self) -> int:
        return hash((self.shape, self.affine_voxel_to_world.tobytes()))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along X, Y, Z in mm."""
        x, y, z = voxel_sizes(self.affine_voxel_to_world)
        return float(x), float(y), float(z)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine_voxel_to_world[:3, :3]))) / 1000.0

    @property
    def orientation(self) -> str:
        """The direction, nearest to an anatomical one, in which each voxel axis grows: for example ``"LPS"``."""
        return "".join(str(code) for code in aff2axcodes(self.affine_voxel_to_world))

    @property
    def is_oblique(self) -> bool:
        """Whether the voxel axes are turned against the anatomical ones by more than 0.1 degrees."""
        directions = self.affine_voxel_to_world[:3, :3] / np.asarray(self.spacing_mm)
        return bool(np.abs(directions).max(axis=0).min() < np.cos(np.deg2rad(0.1)))

    @property
    def shear_degrees(self) -> float:
        """How far the voxel axes are from perpendicular, at most, in degrees; 0 for ordinary images."""
        directions = self.affine_voxel_to_world[:3, :3] / np.asarray(self.spacing_mm)
        cosines = np.abs(directions.T @ directions - np.eye(3))
        return float(np.rad2deg(np.arcsin(min(cosines.max(), 1.0))))

    @property
    def is_sheared(self) -> bool:
        """Whether the voxel axes are not perpendicular (by more than 0.1 degrees)."""
        return self.shear_degrees > 0.1

    def world(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """World coordinates (..., 3) in mm of voxel indices (..., 3)."""
        return np.asarray(apply_affine(self.affine_voxel_to_world, np.asarray(voxels)), dtype=np.float64)

    def largest_distance_mm(self, other: Geometry) -> float:
        """Largest distance in mm between the same corner voxel of two grids of one shape."""
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), -1).reshape(-1, 3)
        return float(np.linalg.norm(self.world(corners) - other.world(corners), axis=1).max())

    def same_grid(self, other: Geometry) -> bool:
        """Whether both grids have one shape and no voxel is further apart than 2 % of the smallest spacing.

        The tolerance lets grids pass that differ by float32 rounding in a file's header, nothing more.
        """
        return self.shape == other.shape and self.largest_distance_mm(other) <= SAME_GRID_FRACTION * min(
            *self.spacing_mm, *other.spacing_mm
        )

    def difference(self, other: Geometry) -> str:
        """In words how `other` differs from this grid; empty when `same_grid`."""
        if self.shape != other.shape:
            return f"shape {_times(self.shape)} against {_times(other.shape)} voxels"
        if self.same_grid(other):
            return ""
        if self.orientation != other.orientation:
            return f"orientation {self.orientation} against {other.orientation}"
        if not np.allclose(self.spacing_mm, other.spacing_mm, rtol=1e-3):
            return f"spacing {_times(self.spacing_mm)} against {_times(other.spacing_mm)} mm"
        return f"the grids lie up to {self.largest_distance_mm(other):.3g} mm apart"

    def orientation_to(self, codes: str) -> NDArray[np.float64]:
        """The nibabel orientation transform (3, 2) that turns an array of this grid to axis codes such as ``"RAS"``.

        Use it with `nibabel.orientations.apply_orientation`, which returns a view: no voxel is changed or copied.
        """
        return np.asarray(ornt_transform(io_orientation(self.affine_voxel_to_world), axcodes2ornt(tuple(codes))))


def _times(numbers: tuple[float, ...]) -> str:
    return "×".join(f"{n:g}" if isinstance(n, int) else f"{n:.4g}" for n in numbers)
