"""Read every case before work is built on it, and list all that is wrong at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import Seg3dError
from ..events import Event, Finished, Progress, job
from ..volumes.files import read_label_map, read_volume
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, LabelTable, Volume, distinct_values
from .case import CaseFiles
from .dataset import Dataset
from .labels import ENHANCING, regions_for
from .listing import Problem
from .names import modality_of


@job
def check_cases(cases: Dataset | Sequence[CaseFiles]) -> Iterator[Event]:
    """Read all files of all cases and tell what is wrong or odd about them.

    Parameters
    ----------
    cases : Dataset or sequence of CaseFiles

    Yields
    ------
    Progress
        After each case.
    Finished
        Its result is a tuple of `Problem`, those of ``Dataset.problems`` not among them: unreadable files, images on
        different grids, voxels that are no number, labels that are no integers or have no name, empty truths, constant
        images, label numbers that look mixed up.
    """
    started = time.monotonic()
    entries = tuple(cases)
    problems: list[Problem] = []
    present: set[int] = set()
    yield Progress("Checking cases", 0, len(entries))
    for i, case in enumerate(entries):
        check = _Check(case)
        present |= check.run()
        problems += check.problems
        elapsed = time.monotonic() - started
        yield Progress("Checking cases", i + 1, len(entries), elapsed / (i + 1) * (len(entries) - i - 1))
    problems += _labels_without_voxels(entries, present)
    errors = sum(problem.severity == "error" for problem in problems)
    message = f"{len(entries)} cases were read: {errors} errors, {len(problems) - errors} warnings."
    yield Finished(tuple(problems), message, time.monotonic() - started)


@dataclass
class _Check:
    """The check of one case: goes on after each problem as far as that makes sense."""

    case: CaseFiles
    problems: list[Problem] = field(default_factory=list)

    def run(self) -> set[int]:
        """Fill `problems`, and return the label values that occur."""
        volumes = self._volumes()
        geometry = next((volume.geometry for volume in volumes.values()), None)
        truth = None if self.case.best_truth is None else self._truth(self.case.best_truth, geometry)
        if self.case.mask is not None and geometry is not None:
            self._mask(self.case.mask, geometry, truth)
        if truth is None or self.case.best_truth is None:
            return set()
        self._brightest(self.case.best_truth, volumes, truth)
        return {int(value) for value in distinct_values(truth.data)}

    def _error(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, f"Case {self.case.id}: {message}", "error"))

    def _warning(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, f"Case {self.case.id}: {message}", "warning"))

    def _volumes(self) -> dict[str, Volume]:
        volumes: dict[str, Volume] = {}
        for name, file in self.case.modalities.items():
            try:
                volume = read_volume(file.path, channel=file.channel)
            except Seg3dError as error:
                self._error(file.path, f"{name} cannot be used. {error}")
                continue
            self._notes(file.path, volume)
            if volume.data.min() == volume.data.max():
                self._warning(file.path, f"all voxels of {name} have the same value.")
            for other, first in list(volumes.items())[:1]:
                if difference := first.geometry.difference(volume.geometry):
                    self._error(file.path, f"{name} does not lie on the grid of {other} ({difference}).")
            volumes[name] = volume
        return volumes

    def _truth(self, path: Path, geometry: Geometry | None) -> LabelMap | None:
        """The truth if it can be compared with the images."""
        try:
            truth = read_label_map(path, self.case.table)
        except Seg3dError as error:
            self._error(path, f"the truth cannot be used. {error}")
            return None
        self._notes(path, truth)
        values = [int(value) for value in distinct_values(truth.data) if value != 0]
        unnamed = [value for value in values if value not in self.case.table.values]
        if not values:
            self._warning(path, "the truth has no labelled voxel.")
        if unnamed and len(self.case.table):
            self._error(path, f"the truth holds the values {unnamed}, which have no name in the dataset.")
        if geometry is not None and (difference := geometry.difference(truth.geometry)):
            self._error(path, f"the truth does not lie on the grid of the images ({difference}).")
            return None
        return truth

    def _mask(self, path: Path, geometry: Geometry, truth: LabelMap | None) -> None:
        try:
            mask = self.case.read_mask(path, geometry)
        except Seg3dError as error:
            self._error(path, f"the mask cannot be used. {error}")
            return
        if not mask.any():
            self._warning(path, "the mask is empty and is not used.")
        elif truth is not None and (outside := np.count_nonzero(truth.data[~mask])):
            self._warning(path, f"{outside:,} labelled voxels lie outside the mask.")

    def _notes(self, path: Path, image: Volume | LabelMap) -> None:
        for note in image.source.notes if image.source is not None else ():
            self._warning(path, note)

    def _brightest(self, path: Path, volumes: dict[str, Volume], truth: LabelMap) -> None:
        """Warn if the enhancing label is not the brightest with contrast: its number may be that of another edition."""
        enhancing = {region.values for region in regions_for(truth.table) or () if region.name == ENHANCING}
        contrast = [(name, volume) for name, volume in volumes.items() if modality_of(name) == "T1c"]
        if not enhancing or not contrast or contrast[0][1].data.shape != truth.data.shape:
            return
        name, volume = contrast[0]
        voxels = {label: volume.data[truth.data == label.value] for label in truth.table}
        means = {label: float(values.mean()) for label, values in voxels.items() if values.size}
        expected = [label for label in means if (label.value,) in enhancing]
        brightest = max(means, key=lambda label: means[label], default=None)
        if expected and brightest is not None and brightest not in expected:
            self._warning(
                path,
                f"{brightest.name} is brighter in {name} than {expected[0].name}. "
                "Perhaps the label numbers are those of another edition.",
            )


def _labels_without_voxels(cases: Sequence[CaseFiles], present: set[int]) -> list[Problem]:
    """One problem for each named label that no case has; none if nothing is labelled."""
    table = next((case.table for case in cases if case.best_truth is not None), LabelTable())
    if not present - {0}:
        return []
    return [
        Problem(_common_folder(cases), f"No case has a voxel of the label {label.value} ({label.name}).")
        for label in table
        if label.value not in present
    ]


def _common_folder(cases: Sequence[CaseFiles]) -> Path:
    folders = [next(iter(case.modalities.values())).path.parent for case in cases]
    return next(p for p in (folders[0], *folders[0].parents) if all(f.is_relative_to(p) for f in folders))
