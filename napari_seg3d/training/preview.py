"""See the pipeline: training patches after all transforms, exactly as the network would see them.

A patch stands where its centre was cut, on the axes of the network's grid. What was turned, bent or mirrored in it
stands otherwise than the patient: `Patch.done` tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import acos, degrees
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cases.labels import Region
from ..comparison.canvas import save_figure
from ..comparison.panel_figures import panels_figure
from ..errors import FileError
from ..events import Event, Finished, Progress, Saved, job
from ..model.plan import AXES, Plan
from ..model.prepare import IGNORED
from ..volumes.files import write_label_map, write_volume
from ..volumes.geometry import Geometry
from ..volumes.volume import Label, LabelMap, LabelTable, Volume
from .augment import Draw, draw_augmentation
from .batches import Supply
from .cache import PreparedCache, Source, StoredCase
from .patches import Cut, Pool, draw_cut, labelled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colour of voxels from which nothing is learned.
_UNKNOWN = "#9a9a9a"


@dataclass(frozen=True, eq=False)
class Patch:
    """One training patch.

    Parameters
    ----------
    case_id : str
        Where it was cut from.
    step, place : int
        Step of the training and place in its batch, both from 0.
    images : mapping of str to Volume
        Modality -> normalised float32 intensities after all transforms.
    target : LabelMap
        What the network shall say, in the plan's label values.
    regions : mapping of str to LabelMap
        Where regions are learned: the mask of each, 1 inside; they overlap.
    label_regions : tuple of Region
        The same as sets of label values.
    done : tuple of str
        What was done to it, in words.
    """

    case_id: str
    step: int
    place: int
    images: Mapping[str, Volume]
    target: LabelMap
    regions: Mapping[str, LabelMap] = field(default_factory=dict)
    label_regions: tuple[Region, ...] = ()
    done: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name for files: case, step and place."""
        return f"{self.case_id}.step{self.step}.{self.place}"

    def in_words(self) -> str:
        """Where it comes from and what was done to it, on one line."""
        size = " × ".join(str(n) for n in self.target.geometry.shape)
        what = ", ".join(self.done) or "left as it is"
        return f"{self.case_id}, step {self.step}, place {self.place}: {size} voxels, {what}."


@job
def preview(
    plan: Plan,
    cases: Sequence[Source],
    *,
    step: int = 0,
    older: Sequence[Source] = (),
    cache: PreparedCache | None = None,
) -> Iterator[Event]:
    """Make the patches of one step.

    Parameters
    ----------
    plan : Plan
    cases : sequence of Case or CaseFiles
        All that the training learns from, in its order: which of them a patch is cut from depends on their number. Only
        those that are needed are read, and kept in the cache for the training.
    step : int
        Step of the training, from 0.
    older : sequence of Case or CaseFiles
        Those that are mixed in so as not to be forgotten.
    cache : PreparedCache, optional

    Yields
    ------
    Event
        Progress per case that is prepared; the last is Finished with a tuple of `Patch`, one for each place of the
        batch.
    """
    cache = cache or PreparedCache()
    pool = Pool(_Lazy(list(labelled(cases)), plan, cache), _Lazy(older, plan, cache))
    cuts = []
    for place in range(plan.batch_size):
        yield Progress("Preparing the cases of a patch", place, plan.batch_size)
        cuts.append(draw_cut(pool, plan, step, place))
    yield Progress("Cutting patches", plan.batch_size, plan.batch_size)
    images, targets = Supply(pool, plan, torch.device("cpu"), resident=False).batch(step)
    parts = zip(cuts, images, targets[:, 0], strict=True)
    patches = [_patch(plan, pool, cut, step, place, *pair) for place, (cut, *pair) in enumerate(parts)]
    cache.trim()
    yield Finished(tuple(patches), f"Step {step} has {len(patches)} patches.")


@job
def write_patches(
    plan: Plan, cases: Sequence[Source], output: Path, *, count: int = 1, first_step: int = 0
) -> Iterator[Event]:
    """Write patches of a training, each into a folder ``<case>.step<n>.<place>`` with a picture.

    Parameters
    ----------
    plan, cases
        As `preview`.
    output : Path
        Made if needed; a file of the same name is replaced.
    count : int
        How many patches, place after place and step after step.
    first_step : int

    Yields
    ------
    Event
        Progress, `Saved` for each file; the last is Finished with a tuple of (`Patch`, paths), the picture first.
    """
    cache = PreparedCache()
    written: list[tuple[Patch, tuple[Path, ...]]] = []
    step = first_step
    while len(written) < count:
        patches: tuple[Patch, ...] = ()
        for event in preview(plan, cases, step=step, cache=cache):
            if isinstance(event, Finished):
                patches = event.result
            else:
                yield event
        for patch in patches[: count - len(written)]:
            yield Progress(f"Writing {patch.name}", len(written), count)
            paths = _write(patch, output / patch.name)
            written.append((patch, paths))
            for path in paths:
                yield Saved(path, "patch")
        if not patches:
            return  # what went wrong has been passed on
        step += 1
    yield Finished(tuple(written), f"Wrote {count} {'patch' if count == 1 else 'patches'} to {output}.")


def patch_figure(patch: Patch) -> Figure:
    """Images, labels and regions of a patch side by side, in three planes."""
    return panels_figure(patch.images, patch.target, regions=patch.label_regions, title=patch.name)


class _Lazy(Sequence[StoredCase]):
    """Prepared cases, each made when it is first asked for."""

    def __init__(self, sources: Sequence[Source], plan: Plan, cache: PreparedCache) -> None:
        self._sources, self._plan, self._cache = sources, plan, cache
        self._stored: dict[int, StoredCase] = {}

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, number: int) -> StoredCase: ...

    @overload
    def __getitem__(self, number: slice) -> list[StoredCase]: ...

    def __getitem__(self, number: int | slice) -> StoredCase | list[StoredCase]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if number not in self._stored:
            self._stored[number] = self._cache.case(self._sources[number], self._plan)
        return self._stored[number]


def _patch(plan: Plan, pool: Pool, cut: Cut, step: int, place: int, images: Tensor, target: Tensor) -> Patch:
    stored = pool[cut.case]
    size = tuple(images.shape[1:])
    network = stored.grid.network
    affine = network.affine_voxel_to_world.copy()
    affine[:3, 3] = network.world([centre - n // 2 for centre, n in zip(cut.centre, size, strict=True)])
    geometry = Geometry((size[0], size[1], size[2]), affine)
    volumes = {
        name: Volume(channel.numpy().astype(np.float32), geometry, name)
        for name, channel in zip(plan.modalities, images, strict=True)
    }
    labels, masks = _targets(plan, target.numpy(), geometry)
    done = tuple(_done(draw_augmentation(plan, step, place), plan))
    regions = plan.label_regions if plan.targets == "regions" else ()
    return Patch(stored.id, step, place, volumes, labels, masks, regions, done)


def _targets(plan: Plan, target: NDArray[np.uint8], geometry: Geometry) -> tuple[LabelMap, dict[str, LabelMap]]:
    values = [0, *(label.value for label in plan.labels)]
    unknown = plan.ignore_value or max(IGNORED, max(values) + 1)
    table = np.zeros(IGNORED + 1, np.min_scalar_type(max(*values, unknown)))
    table[: len(values)] = values
    table[IGNORED] = unknown
    names = plan.label_table
    if (target == IGNORED).any():
        names = LabelTable((*names, Label(unknown, "not known", _UNKNOWN)))
    data = table[target]
    masks = {}
    for region in plan.label_regions if plan.targets == "regions" else ():
        inside = np.isin(data, region.values).astype(np.uint8)
        one = LabelTable((Label(1, region.name, region.color),))
        masks[region.name] = LabelMap(inside, geometry, one, region.name)
    return LabelMap(data, geometry, names, "target"), masks


def _done(draw: Draw, plan: Plan) -> Iterator[str]:
    """Say what was done, in the order in which it was."""
    if draw.matrix is not None:
        to_mm = np.diag(plan.spacing_mm)
        turn = to_mm @ draw.matrix @ np.linalg.inv(to_mm)
        scale = 1 / np.cbrt(np.linalg.det(turn))
        angle = degrees(acos(float(np.clip((np.trace(turn * scale) - 1) / 2, -1, 1))))
        if angle > 0.05:
            yield f"turned by {angle:.0f}°"
        if abs(scale - 1) > 0.005:
            yield f"scaled by {scale:.2f}"
    if draw.warp is not None:
        yield "bent"
    if draw.mirror:
        yield f"mirrored {', '.join(AXES[axis] for axis in draw.mirror)}"
    if draw.quarter_turns:
        yield f"turned round by {90 * draw.quarter_turns}°"
    for name, numbers in (
        ("noise", draw.noise),
        ("blur", draw.blur),
        ("brightness", draw.brightness),
        ("shift", draw.shift),
        ("contrast", draw.contrast),
        ("gamma", draw.gamma),
    ):
        if numbers is not None:
            yield f"{name} {', '.join(f'{number:.2g}' for number in numbers)}"
    if draw.low_resolution is not None:
        yield f"resolution {draw.low_resolution:.2f}"


def _write(patch: Patch, folder: Path) -> tuple[Path, ...]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {folder} cannot be made: {error.strerror or error}.") from None
    paths = [save_figure(folder / "patch.png", patch_figure(patch))]
    for name, volume in patch.images.items():
        paths.append(write_volume(folder / f"{_slug(name)}.nii.gz", volume, overwrite=True))
    paths.append(write_label_map(folder / "target.nii.gz", patch.target, overwrite=True))
    for name, mask in patch.regions.items():
        paths.append(write_label_map(folder / f"region-{_slug(name)}.nii.gz", mask, overwrite=True))
    return tuple(paths)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
