"""The review list of the open dataset in the window: states, order, marks on slices, what it has cost; without Qt.

What is asked of it is written at once, except marks on slices: these are a draft until a version of the labels is
saved, beside which they then stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from ..cases.checked import VoxelBox, read_checked, write_checked
from ..cases.corrections import Correction, versions
from ..correction.queue import Effort, Facts, Order, Review, ReviewList, State, effort, slices_checked, with_slice
from ..errors import FileError, Seg3dError
from ..events import Event, Finished, Progress, Warned, job
from ..volumes.files import read_volume
from .saving import user
from .work import Job

if TYPE_CHECKING:
    from napari.layers import Labels

    from .workspace import Workspace

#: The orders of the list and what they are called.
ORDERS: Mapping[str, str] = {
    "name": "By name",
    "hand": "By hand",
    "quality": "Lowest Dice first",
    "certainty": "Most certain first",
    "uncertainty": "Least certain first",
    "age": "Oldest model first",
}
#: Those that go by the uncertainty of predictions.
BY_CERTAINTY = ("certainty", "uncertainty")


@job
def read_facts(folder: Path, case_ids: tuple[str, ...], maps: Mapping[str, Path]) -> Iterator[Event]:
    """What every case has cost, and how uncertain its prediction is; Finished.result = (efforts, uncertainties).

    An uncertainty stands beside the map that it is from.
    """
    yield Progress("reading histories", 0)
    efforts: dict[str, Effort] = {}
    uncertain: dict[str, tuple[Path, float]] = {}
    for case_id in case_ids:
        try:
            efforts.update({one.case_id: one for one in effort(folder, [case_id])})
        except Seg3dError as error:
            yield Warned(str(error))
    for done, (case_id, path) in enumerate(maps.items()):
        yield Progress("reading uncertainties", done, len(maps))
        try:
            values = read_volume(path).data
        except Seg3dError as error:
            yield Warned(str(error))
            continue
        doubtful = values[values > 0.1]
        uncertain[case_id] = path, float(doubtful.sum(dtype=np.float64))
    yield Finished((efforts, uncertain))


class CaseQueue:
    """The review list of the workspace's dataset.

    Parameters
    ----------
    workspace : Workspace
    """

    #: States, order or costs are others than before.
    changed = Signal()
    #: Marks on slices of the open case.
    slices_changed = Signal()

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._list: ReviewList | None = None
        self._place: dict[str, int] = {}
        #: By case, from which map: a newer prediction has another one.
        self._uncertain: dict[str, tuple[Path, float]] = {}
        self._read: Job | None = None
        self.order: str = "name"
        #: What each corrected case has cost.
        self.efforts: dict[str, Effort] = {}
        #: Boxes of the open case that were marked; None: nothing was marked, all counts as checked once it is saved.
        self.boxes: tuple[VoxelBox, ...] | None = None
        #: The case that is checked as soon as it is saved.
        self.checking: str | None = None
        workspace.dataset_changed.connect(self._reopen)
        workspace.results_changed.connect(self._results_changed)
        workspace.case_changed.connect(self._case_changed)
        workspace.job_event.connect(self._take)
        self._reopen()

    # States and order

    def _reopen(self) -> None:
        workspace = self._workspace
        self._list, self.efforts, self._uncertain = None, {}, {}
        if workspace.dataset is not None and workspace.output is not None:
            try:
                ids = [files.id for files in workspace.dataset.cases]
                self._list = ReviewList(workspace.corrections_folder, ids)
            except Seg3dError as error:
                workspace.say("error", str(error))
        self.arrange(self.order)
        self.look_at_costs()

    def review(self, case_id: str) -> Review:
        """Return what is known of a case."""
        return Review() if self._list is None else self._list[case_id]

    def counts(self) -> dict[State, int]:
        """Return the number of cases in each state."""
        return {} if self._list is None else self._list.counts()

    def set(self, case_id: str, state: State, *, comment: str | None = None, author: str = "") -> None:
        """Set the state of a case.

        Raises
        ------
        Seg3dError
            If it cannot be written.
        """
        if self._list is not None:
            self._list.set(case_id, state, comment=comment, author=author)
            self.changed.emit()

    def arrange(self, order: str) -> None:
        """Set the order of the list; one of `ORDERS`."""
        self.order = order
        self._arrange()
        self.changed.emit()

    def _arrange(self) -> None:
        if self._list is None:
            self._place = {}
        elif self.order == "name":
            # Nothing is known of any case: the names decide.
            self._place = _places(self._list.arrange("quality"))
        else:
            self._place = _places(self._list.arrange(_order(self.order), self._facts()))

    def place(self, case_id: str) -> int:
        """Return the place of a case in the list, from 0."""
        return self._place.get(case_id, len(self._place))

    def move(self, case_id: str, by: int) -> None:
        """Move a case up (-1) or down (1), which makes it a list by hand.

        Raises
        ------
        Seg3dError
            If it cannot be written.
        """
        if self._list is None:
            return
        if self.order != "hand":
            # What is shown is what is moved in.
            for number, one in enumerate(sorted(self._place, key=self._place.__getitem__)):
                self._list.move(one, number)
        place = min(max(self.place(case_id) + by, 0), len(self._place) - 1)
        self._list.move(case_id, place)
        self.arrange("hand")

    def next_after(self, case_id: str | None) -> str | None:
        """Return the next case that is to do, in the list's order; None if there is none."""
        return None if self._list is None else self._list.next_after(case_id)

    def _facts(self) -> dict[str, Facts]:
        workspace = self._workspace
        made: dict[Path, str] = {}
        facts = {}
        for case_id, paths in workspace.predictions.items():
            run = workspace.runs / paths[0].parent.name / "model.json"
            if run not in made:
                made[run] = _date(run)
            found_in, value = self._uncertain.get(case_id, (None, None))
            uncertain = value if found_in == uncertainty_of(case_id, paths[0]) else None
            facts[case_id] = Facts(workspace.scores.get(case_id), uncertain, made[run] or _date(paths[0]))
        return facts

    # What it has cost

    def look_at_costs(self) -> None:
        """Read histories and uncertainties in the background; `changed` follows."""
        workspace = self._workspace
        if self._list is None or workspace.dataset is None:
            return
        if self._read is not None:
            workspace.quick.drop(self._read)
        maps = {case_id: uncertainty_of(case_id, paths[0]) for case_id, paths in self._predictions()}
        read = {path for path, _ in self._uncertain.values()}
        maps = {case_id: path for case_id, path in maps.items() if path.is_file() and path not in read}
        ids = tuple(workspace.corrections)
        if not ids and not maps:
            return
        kwargs = {"folder": workspace.corrections_folder, "case_ids": ids, "maps": maps}
        self._read = Job("Reading histories", "napari_seg3d.gui.queueing:read_facts", kwargs, "thread", "facts", True)
        workspace.start(self._read)

    def _predictions(self) -> list[tuple[str, list[Path]]]:
        return [(case_id, paths) for case_id, paths in self._workspace.predictions.items() if "." not in case_id]

    def _take(self, done: Job, event: Event) -> None:
        if done is self._read and isinstance(event, Finished):
            self._read = None
            self.efforts, found = event.result
            self._uncertain.update(found)
            if self.order != "name":
                self._arrange()
            self.changed.emit()

    def _results_changed(self) -> None:
        if self._list is None:
            return
        if self._workspace.output is None or self._list.path.parent != self._workspace.corrections_folder:
            self._reopen()
            return
        if self.order in ("quality", "age"):
            self._arrange()
        self.changed.emit()
        if self.order in BY_CERTAINTY:
            self.look_at_costs()

    def versions(self, case_id: str) -> list[Correction]:
        """Return the saved versions of a case, newest first.

        Raises
        ------
        Seg3dError
            If a history is damaged.
        """
        if self._workspace.output is None:
            return []
        return versions(self._workspace.corrections_folder, case_id)[::-1]

    # Slices

    def _case_changed(self) -> None:
        self.boxes = None
        case_id = self._workspace.case_id
        if case_id is not None and self._workspace.output is not None:
            try:
                if self._list is not None and self._list.refresh():
                    # Another window has been at work.
                    self.arrange(self.order)
                self.boxes = read_checked(self._draft(case_id)) or None
                if self.boxes is None and (newest := self._workspace.corrections.get(case_id)) is not None:
                    self.boxes = read_checked(newest) or None
            except Seg3dError as error:
                self._workspace.say("warning", str(error))
        self.slices_changed.emit()

    def _draft(self, case_id: str) -> Path:
        return self._workspace.corrections_folder.with_name("journals") / f"{case_id}.nii.gz"

    def slices(self, axis: int) -> NDArray[np.bool_]:
        """Return which slices of the open case across an axis (0 X, 1 Y, 2 Z) were marked: (slices,) bool."""
        case = self._workspace.case
        if case is None:
            return np.zeros(0, bool)
        return slices_checked(self.boxes or (), case.geometry.shape, axis)

    def toggle_slice(self, axis: int, number: int) -> bool:
        """Mark a slice of the open case as checked, or no longer so; return which.

        Raises
        ------
        Seg3dError
            If the draft cannot be written, or there is no such slice.
        """
        case = self._workspace.case
        if case is None:
            return False
        checked = not self.slices(axis)[number]
        boxes = with_slice(self.boxes or (), case.geometry.shape, axis, number, checked=checked)
        draft = self._draft(case.id)
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder {draft.parent} cannot be made: {error.strerror}.") from error
        write_checked(draft, boxes)
        self.boxes = boxes or None
        self.slices_changed.emit()
        return bool(checked)

    # Saving

    def after_saving(self, layer: Labels, path: Path) -> None:
        """Note that a version was saved: its case is checked, if that was wished, else in progress; with its marks."""
        workspace, case_id = self._workspace, path.parent.name
        if workspace.output is None or path.parent.parent != workspace.corrections_folder:
            return
        # What was painted while it was being saved is not checked.
        whole = self.checking == case_id and layer.name not in workspace.unsaved
        self.checking = None
        try:
            if whole:
                self.set(case_id, State.CHECKED, author=user())
            elif self.review(case_id).state is State.TO_DO:
                self.set(case_id, State.IN_PROGRESS, author=user())
            self._place_marks(case_id, path, whole=whole)
        except Seg3dError as error:
            workspace.say("error", str(error))
        self.look_at_costs()

    def _place_marks(self, case_id: str, path: Path, *, whole: bool) -> None:
        """Put the marks beside a version; where all is checked there are none."""
        if case_id == self._workspace.case_id:
            if whole:
                self.boxes = None
            elif self.boxes is not None:
                write_checked(path, self.boxes)
        self._draft(case_id).with_name(f"{case_id}.checked.json").unlink(missing_ok=True)
        self.slices_changed.emit()


def uncertainty_of(case_id: str, prediction: Path) -> Path:
    """Return where the uncertainty of a prediction is, if there is one."""
    return prediction.with_name(f"{case_id}.uncertainty.nii.gz")


def _places(order: tuple[str, ...]) -> dict[str, int]:
    return {case_id: place for place, case_id in enumerate(order)}


def _order(name: str) -> Order:
    orders: dict[str, Order] = {
        "hand": "hand",
        "quality": "quality",
        "certainty": "certainty",
        "uncertainty": "uncertainty",
        "age": "age",
    }
    return orders[name]


def _date(path: Path) -> str:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except OSError:
        return ""
