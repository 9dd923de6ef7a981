"""Made-up volumes of blob-like objects on nothing, after qim3d's generator (the qim3d tutorial, 2024).

Each object is smooth noise that fades towards the edge of its box, bent by a gamma curve, cut at a threshold, scaled to
a brightness of its own and turned. Boxes do not overlap. Without a background the task is trivial, for then the label
is exactly where the image is above zero: it shows that everything works, and no more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import DatasetError, FileError
from ..events import Event, Finished, Progress, Saved, job
from ..volumes.atomic import write_text_whole
from ..volumes.files import write_label_map, write_volume
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, LabelTable, Volume
from .case import Case

#: The tutorial's ranges: edge of an object's box in voxels, frequency of its noise, gamma, peak and threshold.
EDGE, FREQUENCY, GAMMA, PEAK, THRESHOLD = (30, 41), (0.04, 0.08), (0.8, 1.2), (128, 255), (0.5, 0.6)
_NAMES = LabelTable.from_names({1: "object"})
#: So often a free place is looked for before an object is left out.
_TRIES = 200


def object_phantom(
    seed: int, *, shape: tuple[int, int, int] = (128, 128, 128), count: int = 10, background: float = 0.0
) -> Case:
    """Return a made-up volume of objects, with one label for all of them.

    Parameters
    ----------
    seed : int
        Decides everything.
    shape : (int, int, int)
        Voxels of 1 mm; objects are as much smaller as the volume is below 128.
    count : int
        Objects to place; one that finds no free box is left out.
    background : float
        Largest brightness of the noise between the objects. From about 130 on, no threshold tells them apart.

    Returns
    -------
    Case
        With the modality "image" (uint8) and a truth.

    Raises
    ------
    DatasetError
        If the background is not from 0 to 255.
    """
    if not 0 <= background <= 255:
        raise DatasetError(
            f"Expected a background from 0 to 255, at most as bright as the objects; got {background:g}."
        )
    rng = np.random.default_rng((seed, 7))
    image = np.zeros(shape, np.float32)
    taken = np.zeros(shape, bool)
    scale = min(1.0, min(shape) / 128)
    for _ in range(count):
        size = np.maximum(4, np.round(rng.integers(*EDGE, 3) * scale)).astype(int)
        blob = _object(rng, size, scale)
        corner = _free_place(rng, taken, blob.shape)
        if corner is None:
            continue
        box = tuple(slice(c, c + n) for c, n in zip(corner, blob.shape, strict=True))
        image[box] = blob
        taken[box] = True
    truth = (image > 0).astype(np.uint8)
    if background:
        noise = rng.uniform(0, background, shape).astype(np.float32)
        image = np.where(truth > 0, image, noise)
    geometry = Geometry(shape, np.eye(4))
    volume = Volume(np.clip(np.ceil(image), 0, 255).astype(np.uint8), geometry, "image")
    return Case(f"objects_{seed:03d}", {"image": volume}, LabelMap(truth, geometry, _NAMES, "truth"))


@job
def write_object_dataset(
    folder: Path,
    train: int = 5,
    test: int = 1,
    seed: int = 0,
    *,
    shape: tuple[int, int, int] = (128, 128, 128),
    background: float = 0.0,
) -> Iterator[Event]:
    """Write made-up volumes as ``images/`` and ``labels/``, with a ``split.json`` in which a fifth validates.

    Parameters
    ----------
    folder : Path
        Made if it is missing; a case that is there already is never written over.
    train, test : int
        Numbers of volumes.
    seed : int
        Two datasets of different seeds share no volume.
    shape, background
        As in `object_phantom`.

    Yields
    ------
    Progress, Saved
        For each volume.
    Finished
        Its result is `folder`.
    """
    started = time.monotonic()
    for name in ("images", "labels"):
        try:
            (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder {folder} cannot be made: {error.strerror}. Choose another one.") from error
    ids = [f"objects_{i + 1:03d}" for i in range(train + test)]
    for i, case_id in enumerate(ids):
        left = (time.monotonic() - started) / i * (len(ids) - i) if i else None
        yield Progress("Making up volumes", i, len(ids), left)
        case_seed = int(np.random.SeedSequence((seed, i)).generate_state(1)[0])
        case = object_phantom(case_seed, shape=shape, background=background)
        saved = write_volume(folder / "images" / f"{case_id}.nii.gz", case.modalities["image"])
        assert case.truth is not None  # as it always has
        write_label_map(folder / "labels" / f"{case_id}.nii.gz", case.truth)
        yield Saved(saved, "case")
    write_text_whole(
        folder / "labels.json", json.dumps({"labels": {"0": "background", "1": "object"}}, indent=1) + "\n"
    )
    learned = train - train // 5
    split = {"train": ids[:learned], "validation": ids[learned:train], "test": ids[train:]}
    write_text_whole(folder / "split.json", json.dumps(split, indent=1) + "\n")
    yield Finished(folder, f"{len(ids)} made-up volumes were written.", time.monotonic() - started)


def _object(rng: np.random.Generator, size: NDArray[np.int_], scale: float) -> NDArray[np.float32]:
    """Return one object in its box, 0 outside it."""
    # Noise of a frequency f changes over about 1 / f voxels; a Gaussian of a fifth of that is as coarse.
    noise = ndimage.gaussian_filter(rng.standard_normal(size), 0.2 * scale / rng.uniform(*FREQUENCY))
    values = (noise - noise.min()) / max(float(np.ptp(noise)), 1e-6)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    distance = np.sqrt(sum(axis**2 for axis in axes))
    values = (0.5 + 0.5 * values) * np.clip(1 - distance**3, 0, 1)
    values = (values / values.max()) ** rng.uniform(*GAMMA)
    values[values < rng.uniform(*THRESHOLD)] = 0
    values *= rng.uniform(*PEAK)
    planes = ((0, 1), (0, 2), (1, 2))
    turned = ndimage.rotate(values, rng.uniform(0, 360), planes[rng.integers(3)], reshape=True, order=1)
    turned[turned < values[values > 0].min() / 2] = 0
    inside = ndimage.find_objects((turned > 0).astype(int))
    return np.asarray(turned[inside[0]], dtype=np.float32)


def _free_place(rng: np.random.Generator, taken: NDArray[np.bool_], size: tuple[int, ...]) -> list[int] | None:
    room = [whole - own + 1 for whole, own in zip(taken.shape, size, strict=True)]
    if min(room) < 1:
        return None
    for _ in range(_TRIES):
        corner = [int(rng.integers(n)) for n in room]
        if not taken[tuple(slice(c, c + n) for c, n in zip(corner, size, strict=True))].any():
            return corner
    return None
