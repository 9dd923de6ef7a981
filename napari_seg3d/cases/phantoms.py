"""Made-up studies: a head in four MR contrasts with a nested brain tumour, free of licences and with an exact truth.

The anatomy is painted, layer over layer, in millimetres of the head (RAS+), so that any grid can be laid over it. The
grid is awkward on purpose: anisotropic, oblique, its axes to the left and to the back, every other one left-handed. So
is the picture: uneven coil sensitivity, noise as scanners have it, other bright things (fat, vessels, spots along the
ventricles). No threshold finds the tumour; a small network does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ..errors import FileError
from ..events import Event, Finished, Progress, Saved, job
from ..volumes.atomic import write_text_whole
from ..volumes.files import write_label_map, write_volume
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, Volume
from .case import Case
from .labels import MSD_BRAIN_TUMOUR

MODALITIES = ("FLAIR", "T1", "T1c", "T2")
OEDEMA, CORE, ENHANCING = 1, 2, 3
#: Along left-right, back-front, down-up.
FIELD_OF_VIEW_MM = (166.0, 200.0, 144.0)

#: Brightness of each tissue in the order of `MODALITIES`; 1 is about the brightest normal tissue.
_TISSUES: Mapping[str, tuple[float, float, float, float]] = {
    "air": (0.0, 0.0, 0.0, 0.0),
    "fat": (0.80, 1.00, 1.00, 0.75),
    "muscle": (0.36, 0.42, 0.50, 0.30),
    "bone": (0.10, 0.13, 0.14, 0.10),
    "fluid": (0.12, 0.20, 0.20, 1.00),
    "grey": (0.62, 0.50, 0.52, 0.62),
    "deep grey": (0.57, 0.58, 0.60, 0.52),
    "white": (0.49, 0.72, 0.74, 0.45),
    "vessel": (0.25, 0.38, 1.20, 0.15),
    "membrane": (0.42, 0.45, 0.90, 0.40),
    "white spot": (0.95, 0.60, 0.61, 0.80),
    "cyst": (0.16, 0.24, 0.24, 0.98),
    "oedema": (0.90, 0.56, 0.58, 0.82),
    "core": (0.62, 0.38, 0.42, 0.86),
    "enhancing": (0.80, 0.54, 1.25, 0.70),
}

_Field = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Head:
    """The coordinates of a head and the randomness that shapes it.

    Parameters
    ----------
    place : (3, X, Y, Z) float32 ndarray
        Every voxel in mm to the right, front and top from the middle of the brain; bent where the anatomy is.
    voxel_to_head : (3, 4) float64 ndarray
        The same before bending.
    rng : numpy.random.Generator
    """

    place: _Field
    voxel_to_head: NDArray[np.float64]
    rng: np.random.Generator

    def noise(self, wavelength_mm: float, count: int = 32) -> _Field:
        """Smooth random field (X, Y, Z) of mean 0 and standard deviation 1, the same on whatever grid it is sampled.

        A sum of plane waves in all directions; after some dozens it looks Gaussian. A plane wave on a straight grid is
        a product of three one-dimensional ones, so that the sum is one matrix product.
        """
        directions = self.rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        waves = 2 * np.pi * directions / (wavelength_mm * self.rng.uniform(0.7, 1.5, (count, 1)))
        phases = self.rng.uniform(0, 2 * np.pi, count) + waves @ self.voxel_to_head[:, 3]
        steps = waves @ self.voxel_to_head[:, :3]
        x, y, z = (np.exp(1j * np.outer(steps[:, i], np.arange(n))) for i, n in enumerate(self.place.shape[1:]))
        plane = (x[:, :, None] * (y * np.exp(1j * phases)[:, None])[:, None, :]).reshape(count, -1)
        field = (plane.T @ z).real.reshape(self.place.shape[1:])
        return np.asarray(field * np.sqrt(2 / count), np.float32)

    def between(self, low: float, high: float) -> float:
        """A random number."""
        return float(self.rng.uniform(low, high))

    def side(self) -> int:
        """Left (-1) or right (1)."""
        return int(self.rng.choice((-1, 1)))


@dataclass(frozen=True, eq=False)
class _Tumour:
    """Where the tumour grows: fields that are below 0 inside its parts, and the centre and reach of its pressure."""

    whole: _Field
    core: _Field
    necrosis: _Field
    centre: tuple[float, float, float]
    radius_mm: float


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """Distances in mm, below 0 inside; and how willingly each voxel takes up a tumour (white 1, grey half, fluid 0)."""

    cerebrum: _Field
    brain: _Field
    ventricles: _Field
    hospitable: _Field


def brain_phantom(
    seed: int, *, shape: tuple[int, int, int] = (72, 80, 32), noise: float = 0.03, bias: float = 0.17
) -> Case:
    """Return a made-up head in FLAIR, T1, T1c and T2 with a tumour: 1 oedema, 2 non-enhancing core, 3 enhancing rim.

    Parameters
    ----------
    seed : int
        Other seeds give other anatomy, tumours and artefacts; the same seed gives the same voxels.
    shape : (int, int, int)
        Voxels along the file's X, Y, Z (left, back, up or down). The field of view stays, so this sets the spacing.
    noise : float
        Standard deviation of the noise in both channels of the receiver (Rician; Gudbjartsson and Patz 1995,
        doi:10.1002/mrm.1910340618), relative to bright tissue.
    bias : float
        Standard deviation of the logarithm of the coil sensitivity over the head.

    Returns
    -------
    Case
        Four int16 volumes and a uint8 truth on one oblique grid, ``LPS`` for even seeds, ``LPI`` for odd ones.
    """
    rng = np.random.default_rng(seed)
    geometry = _oblique_grid(shape, rng, descending=seed % 2 == 1)
    head = _placed_head(geometry, rng)
    tumour = _grown_tumour(head)
    bent = replace(head, place=_pushed_aside(head.place, tumour) + 1.6 * np.stack([head.noise(80) for _ in range(3)]))
    images = np.zeros((4, *shape), np.float32)
    anatomy = _paint_head(images, bent)
    _paint_distractors(images, bent, anatomy)
    labels = _paint_tumour(images, tumour, anatomy, head)
    volumes = {
        name: Volume(_acquired(image, head, noise, bias), geometry, name)
        for name, image in zip(MODALITIES, images, strict=True)
    }
    truth = LabelMap(labels, geometry, MSD_BRAIN_TUMOUR.table, "truth")
    return Case(f"brain_{seed:03d}", volumes, truth)


@job
def write_phantom_dataset(
    folder: Path, count: int, seed: int = 0, *, shape: tuple[int, int, int] = (72, 80, 32)
) -> Iterator[Event]:
    """Write made-up studies as a folder per case, with the label names beside them, for `open_dataset` to read.

    Parameters
    ----------
    folder : Path
        Made if it is missing; a case that is there already is never written over.
    count : int
        Number of cases, ``brain_001`` and so on.
    seed : int
        Two data sets of different seeds share no case.
    shape : (int, int, int)
        As in `brain_phantom`.

    Yields
    ------
    Progress, Saved
        For each case.
    Finished
        Its result is `folder`.
    """
    started = time.monotonic()
    _make(folder)
    names = {"0": "background"} | {str(label.value): label.name for label in MSD_BRAIN_TUMOUR.table}
    write_text_whole(folder / "labels.json", json.dumps({"labels": names}, indent=1) + "\n")
    for i in range(count):
        left = (time.monotonic() - started) / i * (count - i) if i else None
        yield Progress("Making up studies", i, count, left)
        case_seed = int(np.random.SeedSequence((seed, i)).generate_state(1)[0])
        case = brain_phantom(case_seed, shape=shape)
        case_id = f"brain_{i + 1:03d}"
        target = folder / case_id
        _make(target)
        for name, volume in case.modalities.items():
            write_volume(target / f"{case_id}_{name}.nii.gz", volume)
        if case.truth is not None:
            write_label_map(target / f"{case_id}_seg.nii.gz", case.truth)
        yield Saved(target, "case")
    yield Finished(folder, f"{count} made-up studies were written.", time.monotonic() - started)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {folder} cannot be made: {error.strerror}. Choose another one.") from error


# --- the grid ---------------------------------------------------------------------------------------------------------


def _oblique_grid(shape: tuple[int, int, int], rng: np.random.Generator, descending: bool) -> Geometry:
    """A grid around the head, tilted by some degrees, with X to the left, Y to the back and Z up (or down)."""
    spacing = np.array(FIELD_OF_VIEW_MM) / shape
    tilt = rng.uniform((4, 3, 3), (12, 7, 8)) * rng.choice((-1, 1), 3)
    turn = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
    axes = turn @ np.diag((-1, -1, -1 if descending else 1)) * spacing
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = rng.uniform(-8, 8, 3) - axes @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


def _placed_head(geometry: Geometry, rng: np.random.Generator) -> _Head:
    """A head near the middle of a grid, slightly turned, a little larger or smaller than others along each axis."""
    turn = Rotation.from_euler("xyz", rng.uniform(-5, 5, 3), degrees=True).as_matrix()
    world_to_head = (turn / rng.uniform(0.95, 1.05, 3)).T
    affine = geometry.affine_voxel_to_world
    axes = world_to_head @ affine[:3, :3]
    middle = (np.array(geometry.shape) - 1) / 2
    origin = rng.uniform((-3, -3, -1), (3, 3, 5)) - axes @ middle
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"))
    place = np.tensordot(axes, voxels, 1) + origin[:, None, None, None]
    return _Head(place.astype(np.float32), np.column_stack([axes, origin]), rng)


# --- shapes: distances in mm, below 0 inside --------------------------------------------------------------------------


def _ellipsoid(place: _Field, centre: tuple[float, ...], semi_axes: tuple[float, ...]) -> _Field:
    """Approximate distance to an ellipsoid's surface."""
    radius = np.linalg.norm((place - _column(centre)) / _column(semi_axes), axis=0)
    return np.asarray((radius - 1) * np.float32(min(semi_axes)), np.float32)


def _box(place: _Field, centre: tuple[float, ...], semi_axes: tuple[float, ...]) -> _Field:
    """Approximate distance to the surface of an ellipsoid with flatter sides, as skulls have them."""
    scaled = ((place - _column(centre)) / _column(semi_axes)) ** 2
    radius = np.sqrt(np.sqrt((scaled * scaled).sum(0)) * 0.35 + scaled.sum(0) * 0.65)
    return np.asarray((radius - 0.955) * np.float32(min(semi_axes)), np.float32)


def _pair(place: _Field, centre: tuple[float, float, float], semi_axes: tuple[float, float, float]) -> _Field:
    """`_ellipsoid` on both sides of the midplane."""
    return _ellipsoid(np.stack([np.abs(place[0]), place[1], place[2]]), centre, semi_axes)


def _tube(place: _Field, points: NDArray[np.float64], radius_mm: float) -> _Field:
    """Distance to the surface of a tube along a polyline."""
    nearest = np.full(place.shape[1:], np.inf, np.float32)
    for start, end in pairwise(points):
        along = (end - start).astype(np.float32)
        offset = place - _column(start)
        part = np.clip(np.tensordot(along / (along @ along), offset, 1), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(offset - part * _column(along), axis=0))
    return nearest - np.float32(radius_mm)


def _inside(distance: _Field, softness_mm: float = 0.9) -> _Field:
    """From 0 outside to 1 inside a surface, smooth across it: a voxel on the border holds some of both."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance / np.float32(softness_mm), -30, 30))), np.float32)


def _column(numbers: tuple[float, ...] | NDArray[np.floating]) -> _Field:
    return np.asarray(numbers, np.float32).reshape(3, 1, 1, 1)


# --- the tumour -------------------------------------------------------------------------------------------------------


def _grown_tumour(head: _Head) -> _Tumour:
    """A tumour in the white matter of one side: oedema around an irregular core with a rim."""
    centre = (head.side() * head.between(26, 38), head.between(-38, 36), head.between(2, 28))
    radius = head.between(22, 28)
    turn = Rotation.random(random_state=head.rng).as_matrix().astype(np.float32)
    offset = np.tensordot(turn, head.place - _column(centre), 1)
    stretch = head.rng.uniform(0.8, 1.25, 3)
    bulges = head.noise(38) * 0.17 + head.noise(17) * 0.08
    whole = np.linalg.norm(offset / _column(radius * stretch), axis=0) - 1 + bulges
    shift = head.rng.uniform(-0.12, 0.12, 3) * radius
    core_radius = radius * head.between(0.74, 0.84)
    lobes = head.noise(26) * 0.14 + head.noise(12) * 0.06
    core = np.linalg.norm((offset - _column(shift)) / _column(core_radius * stretch[::-1]), axis=0) - 1 + lobes
    # The rim is 6 to 8 mm thick and thins out here and there.
    rim = head.between(0.32, 0.40) * (1 + 0.22 * head.noise(22))
    return _Tumour(whole, np.maximum(core, whole + 0.1), core + rim, centre, radius)


def _pushed_aside(place: _Field, tumour: _Tumour) -> _Field:
    """Coordinates of the anatomy that the tumour has pushed away from its centre, by 6 mm at most."""
    offset = place - _column(tumour.centre)
    distance = np.linalg.norm(offset, axis=0)
    reach = distance / np.float32(tumour.radius_mm)
    push = 6 * reach * np.exp(1 - 1.5 * reach)
    return np.asarray(place - offset / np.maximum(distance, 1) * push, np.float32)


def _paint_tumour(images: _Field, tumour: _Tumour, anatomy: _Anatomy, head: _Head) -> NDArray[np.uint8]:
    """Paint the tumour where brain tissue allows it, and return its labels."""
    # Oedema spreads in white matter and stops before grey; fluid and bone hold none.
    oedema = tumour.whole * 10 + 6 * (0.62 - anatomy.hospitable)
    core = np.maximum(tumour.core * 10, 8 * (0.3 - anatomy.hospitable))
    necrosis = np.maximum(tumour.necrosis * 10, core + 1)
    patchy = 1 + 0.07 * head.noise(11)
    _paint(images, _inside(oedema) * head.between(0.88, 1.0) * np.clip(patchy, 0, 1.1), "oedema")
    _paint(images, _inside(core), "enhancing", patchy)
    _paint(images, _inside(necrosis), "core", patchy)
    labels = np.zeros(oedema.shape, np.uint8)
    labels[oedema < 0] = OEDEMA
    labels[core < 0] = ENHANCING
    labels[(core < 0) & (necrosis < 0)] = CORE
    return labels


# --- the head ---------------------------------------------------------------------------------------------------------


def _paint_head(images: _Field, head: _Head) -> _Anatomy:
    """Paint a healthy head from the skin inwards, and return where its parts are."""
    cerebrum = _cerebrum(head.place)
    brain = np.minimum(cerebrum, _hindbrain(head.place))
    ventricles = _ventricles(head)
    _paint_skull(images, head, brain)
    hospitable = _paint_brain(images, head, cerebrum, brain, ventricles)
    return _Anatomy(cerebrum, brain, ventricles, hospitable)


def _cerebrum(place: _Field) -> _Field:
    """Two hemispheres, longer than wide, narrower in front, on a base that rises to the front and the back."""
    narrowed = np.stack([place[0] * (1 + np.clip(place[1], 0, 80) / 450), place[1], place[2]])
    dome = _box(narrowed, (0, -2, 0), (66, 80, 62))
    temporal = 20 * np.exp(-(((np.abs(place[0]) - 44) / 17) ** 2) - ((place[1] + 2) / 34) ** 2)
    base = -20 - temporal - place[2] + 0.002 * (place[1] + 5) ** 2
    return np.asarray(np.maximum(dome, 0.8 * base), np.float32)


def _hindbrain(place: _Field) -> _Field:
    cerebellum = _pair(place, (21, -50, -40), (30, 27, 21))
    stem = _ellipsoid(place, (0, -24, -52), (11, 11, 42))
    return np.minimum(cerebellum, stem)


def _ventricles(head: _Head) -> _Field:
    width = head.between(0.85, 1.3)
    sideways = np.abs(head.place[0] + 0.8 * head.noise(60)) - np.clip(-head.place[1], 0, 60) * 0.25
    lean = np.stack([sideways, head.place[1], head.place[2]])
    bodies = _ellipsoid(lean, (7.5, -2, 14), (5.5 * width, 32, 8 * width))
    horns = _ellipsoid(lean, (10, -40, 8), (5.5 * width, 16, 9 * width))
    third = _ellipsoid(head.place, (0, -6, -2), (2.4 * width, 14, 10))
    fourth = _ellipsoid(head.place, (0, -38, -42), (6, 5, 9))
    return np.minimum(np.minimum(bodies, horns), np.minimum(third, fourth))


def _paint_skull(images: _Field, head: _Head, brain: _Field) -> None:
    place = head.place
    skin = _box(place, (0, 0, -24), (78, 96, 102))
    _paint(images, _inside(skin), "fat", 1 + 0.08 * head.noise(25))
    low = _inside(place[2] + 36 + 0.12 * place[1], 5)
    _paint(images, _inside(skin + 7) * low, "muscle", 1 + 0.15 * head.noise(12))
    sinuses = np.maximum(_ellipsoid(place, (0, 62, -50), (24, 24, 22)), 5 * head.noise(22))
    _paint(images, _inside(sinuses), "air")
    skull = np.maximum(brain - 9.5 - head.noise(60), skin + 4)
    _paint(images, _inside(skull), "bone")
    marrow = np.abs(brain - 6.5 + 0.5 * head.noise(20)) - 0.9
    _paint(images, _inside(np.maximum(marrow, skull)) * 0.35, "fat")
    _paint(images, _inside(brain - 2.8 - 0.7 * head.noise(40)), "fluid")
    eyes = _pair(place, (31, 80, -34), (12, 12, 12))
    _paint(images, _inside(eyes - 4) * _inside(skin + 2), "fat")
    _paint(images, _inside(np.maximum(eyes, skin)), "fluid")


def _paint_brain(images: _Field, head: _Head, cerebrum: _Field, brain: _Field, ventricles: _Field) -> _Field:
    """Paint grey and white matter, sulci and ventricles, and return where a tumour may grow."""
    place = head.place
    texture = 1 + 0.03 * head.noise(9)
    _paint(images, _inside(brain), "grey", texture)
    # Folds of the cortex: sulci run where a random field is near 0, deeper where another one says so.
    folds = np.abs(head.noise(24, 48)) * 7 - 0.9
    sulci = np.maximum(folds, -(cerebrum + 13 + 4 * head.noise(50)))
    # The hemispheres are apart but for the bridge of white matter between them.
    bridge = _ellipsoid(place, (0, -6, -6), (30, 46, 32))
    fissure = np.maximum(np.abs(place[0] + 1.2 * head.noise(45)) - 1.2, -bridge - 1)
    fluid = np.maximum(np.minimum(sulci, fissure), cerebrum + 0.5)
    ribbon = 3.6 + 0.6 * head.noise(30)
    white = np.maximum(cerebrum + ribbon + 1.5, ribbon - fluid)
    folia = np.where(place[1] < -32, np.abs(head.noise(15)) * 5 - 2.6, -3)
    white_below = np.maximum(np.maximum(_hindbrain(place) + 5, folia), -cerebrum)
    whiteness = _inside(np.minimum(white, white_below))
    _paint(images, whiteness, "white", texture)
    deep = _inside(np.minimum(_pair(place, (12, -10, 2), (8, 13, 9)), _pair(place, (25, 6, 0), (6, 15, 10))))
    _paint(images, deep, "deep grey", texture)
    rim = np.maximum(ventricles - 3 - 2 * head.noise(28), cerebrum + 12)
    _paint(images, _inside(rim, 0.7) * head.between(0.5, 0.95), "white spot")
    wet = np.maximum(_inside(fluid), _inside(ventricles))
    _paint(images, wet, "fluid")
    return np.asarray(_inside(cerebrum + 1) * (0.5 + 0.5 * whiteness) * (1 - 0.9 * wet) * (1 - 0.35 * deep), np.float32)


def _paint_distractors(images: _Field, head: _Head, anatomy: _Anatomy) -> None:
    """Paint what is bright without being tumour: spots in white matter, vessels and membranes with contrast, cysts."""
    for _ in range(head.rng.integers(5, 12)):
        centre = (head.side() * head.between(12, 42), head.between(-50, 45), head.between(5, 38))
        spot = _ellipsoid(head.place, centre, tuple(head.rng.uniform(2.5, 6, 3)))
        _paint(images, _inside(np.maximum(spot, anatomy.cerebrum + 8)) * head.between(0.6, 1), "white spot")
    if head.rng.random() < 0.4:
        centre = (head.side() * head.between(45, 55), head.between(-30, 40), head.between(-15, 10))
        cyst = _ellipsoid(head.place, centre, tuple(head.rng.uniform(8, 14, 3)))
        _paint(images, _inside(np.maximum(cyst, anatomy.cerebrum)), "cyst")
    membrane = np.abs(anatomy.brain - 2.5) - 0.8
    _paint(images, _inside(membrane) * 0.5, "membrane")
    for vessel in _vessels(head):
        _paint(images, _inside(np.maximum(vessel, anatomy.brain - 4)), "vessel")


def _vessels(head: _Head) -> Iterator[_Field]:
    """Sinuses along the skull, arteries through the fissures, the plexus in the ventricles."""
    angle = np.linspace(-0.3, 3.3, 10)
    yield _tube(head.place, np.stack([0 * angle, 80 * np.cos(angle) - 2, 62 * np.sin(angle)], 1), 3.2)
    turn = np.linspace(0.3, np.pi - 0.3, 6)
    yield _tube(head.place, np.stack([54 * np.cos(turn), -24 - 54 * np.sin(turn), -24 + 0 * turn], 1), 3.2)
    for side in (-1, 1):
        yield _ellipsoid(head.place, (side * 15, -32, 10), (2.5, 9, 3.5))
        for _ in range(4):
            start = np.array((side * head.between(8, 14), head.between(-2, 12), -18.0))
            end = np.array((side * head.between(48, 62), head.between(-45, 45), head.between(-8, 40)))
            middle = (start + end) / 2 + head.rng.normal(0, 8, 3)
            yield _tube(head.place, np.stack([start, middle, end]), head.between(1.2, 2.0))


def _paint(images: _Field, share: _Field, tissue: str, factor: _Field | float = 1.0) -> None:
    """Replace a share (0 to 1) of each voxel by a tissue."""
    for image, brightness in zip(images, _TISSUES[tissue], strict=True):
        image += share * (np.float32(brightness) * factor - image)


# --- the scanner ------------------------------------------------------------------------------------------------------


def _acquired(image: _Field, head: _Head, noise: float, bias: float) -> NDArray[np.int16]:
    """What the scanner makes of the brightness: blur, uneven sensitivity, noise, its own scale."""
    blurred = ndimage.gaussian_filter(image, (0.35, 0.35, 0.25))
    signal = blurred ** head.between(0.9, 1.12) * np.exp(bias * head.noise(260))
    parts = head.rng.normal(0, noise, (2, *image.shape))
    magnitude = np.hypot(signal + parts[0], parts[1])
    scale = np.exp(head.between(np.log(300), np.log(1500)))
    return np.asarray(np.clip(np.rint(magnitude * scale), 0, 32767), np.int16)
