"""Stepping through what may be wrong: one place after the other, decided with one key each."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..cases.corrections import author_of
from ..comparison.difference import Disagreement
from ..correction.change import Change, Indices
from ..correction.marks import Mark, Marks, marks_path
from ..correction.stops import HOLE, ISLAND, Stop, accept, disagreement_stops, mend, position_in_words
from ..errors import Seg3dError
from ..events import Event, Failed, Finished
from ..volumes.volume import Label, LabelMap, LabelTable, Volume
from .edits import Deed, LayerEdits, on_layer
from .keys import with_key
from .layers import SCREEN, difference_layer, origin_or_none, snapshot, stored, voxel_on_screen
from .queueing import uncertainty_of
from .saving import user
from .tasks import SMALLEST_PLACE, Comparison
from .widgets import quiet_label, shortened
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from ..volumes.geometry import Geometry
    from .workspace import Workspace

DISAGREEMENTS, UNCERTAIN, IMPLAUSIBLE = "disagreements", "uncertain", "implausible"
#: What can be stepped through: its name and what it holds.
_SOURCES = {
    DISAGREEMENTS: ("Disagreements", "Connected places where prediction and truth differ"),
    UNCERTAIN: ("Uncertain regions", "Where the model hesitated: from the layer, or the file, of uncertainty"),
    IMPLAUSIBLE: ("Islands, holes, cut parts", "Parts that are seldom right, whatever the truth is"),
}
#: The outline of the place that is looked at.
_OUTLINE = LabelTable((Label(1, "place", "#ff40ff"),))

#: From which uncertainty on a voxel is a place to look at, and its colour on the strip.
UNCERTAIN_FROM = 0.5
UNCERTAIN_TABLE = LabelTable((Label(1, "uncertain", "#cc79a7"),))

Place = Disagreement | Stop


class StepsSection(QWidget):
    """A list of places to step through, and what is decided about each.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    #: "error" or "info", and a sentence.
    said = Signal(str, str)
    #: The layer axes (I, P, L) of the voxel that is to be brought into view.
    went = Signal(object)

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workspace, self._viewer = workspace, viewer
        self._layer: Labels | None = None
        self._against: Labels | None = None
        self._edits: LayerEdits | None = None
        self._comparison: Comparison | None = None
        self._other: LabelMap | None = None
        self._geometry: Geometry | None = None
        #: Found places without a truth, and the work that looks for them.
        self._found: tuple[Stop, ...] = ()
        self._search: Job | None = None
        #: What was kept or checked in this case, those marks of the list that stand, and the steps that made them.
        self._marks: Marks | None = None
        self._standing: tuple[Mark, ...] = ()
        self._deeds: dict[str, Deed] = {}
        self._marks_of = ""
        #: What the corrected layer and the other one are called, where neither is a truth.
        self.raters: tuple[str, str] | None = None
        #: Whether a decision is being carried out.
        self._deciding = False
        self._places: tuple[Place, ...] = ()
        #: Where one stands: the place, or, if it is no more, the number of the one that has come up in its stead.
        self._current: Place | None = None
        self._number = -1
        self._outline: Labels | None = None
        self._outlined: tuple[NDArray[np.intp], ...] | None = None
        self._build()

    def _build(self) -> None:
        self.source = QComboBox()
        self.source.setToolTip("What to step through")
        self.source.activated.connect(lambda _: self._change_source())
        self.order = QComboBox()
        self.order.addItem("largest first", "largest")
        self.order.addItem("slice by slice", "slices")
        self.order.setToolTip("In which order: by volume, or along the slices that the slider goes through")
        self.order.activated.connect(lambda _: self._list_anew())
        for choice in (self.source, self.order):
            choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.where = quiet_label()
        self.back = self._arrow(Qt.ArrowType.LeftArrow, with_key("Go back to the place before", "previous_place"), -1)
        self.on = self._arrow(Qt.ArrowType.RightArrow, with_key("Go to the next place", "next_place"), 1)
        self.accept = self._button("Take truth", "", self.accept_place)
        self.keep = self._button(
            "Keep", with_key("The prediction is right here: take the place off the list", "keep_place"), self.keep_place
        )
        self.check = self._button(
            "Checked",
            with_key("Looked at, whatever is right: take the place off the list", "check_place"),
            self.check_place,
        )
        self.uncheck = self._button(
            "↶",
            with_key("Put the place that was kept or checked last back on the list", "uncheck_place"),
            self.uncheck_place,
        )
        self.uncheck.setMaximumWidth(32)
        self.goes_on = QCheckBox("then next")
        self.goes_on.setToolTip("Go to the next place after each decision")
        self.goes_on.setChecked(True)
        first = QHBoxLayout()
        first.addWidget(self.source, 3)
        first.addWidget(self.order, 2)
        second = QHBoxLayout()
        second.addWidget(self.where, 1)
        second.addWidget(self.back)
        second.addWidget(self.on)
        third = QHBoxLayout()
        for button in (self.accept, self.keep, self.check, self.uncheck):
            third.addWidget(button)
        third.addWidget(self.goes_on)
        third.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for line in (first, second, third):
            layout.addLayout(line)

    def _arrow(self, arrow: Qt.ArrowType, tooltip: str, step: int) -> QToolButton:
        button = QToolButton()
        button.setArrowType(arrow)
        button.setToolTip(tooltip)
        button.clicked.connect(lambda _=False: self.step(step))
        return button

    def _button(self, text: str, tooltip: str, action: Callable[[], object]) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tooltip)
        button.clicked.connect(lambda _=False: action())
        return button

    # What there is

    def show_layers(
        self,
        layer: Labels | None,
        edits: LayerEdits | None,
        comparison: Comparison | None = None,
        other: LabelMap | None = None,
        against: Labels | None = None,
    ) -> None:
        """Step through the faults of a layer.

        Parameters
        ----------
        layer : napari.layers.Labels, optional
            What is corrected; None for nothing.
        edits : LayerEdits, optional
            Its edits; without them the places can be looked at only.
        comparison : Comparison, optional
            With `other`, the truth as it is now, if there is one.
        against : napari.layers.Labels, optional
            The truth's layer.
        """
        origin = None if layer is None else origin_or_none(layer)
        geometry = None if origin is None else origin.geometry
        if (layer, against) != (self._layer, self._against):
            self._forget()
        self._against = against
        self._layer, self._edits, self._geometry = layer, edits, geometry
        self._comparison, self._other = comparison, other
        self._open_marks("" if origin is None else origin.case_id)
        self.raters = raters_of(layer, against)
        if geometry is None:
            self.close_outline()
        self.setVisible(geometry is not None)
        self._list_sources()
        self._list_anew()

    def _forget(self) -> None:
        self._found = ()
        self._current, self._number = None, -1
        self._draw(None)

    def _open_marks(self, case_id: str) -> None:
        """Read what was kept and checked in this case, unless it is known."""
        output = self._workspace.output
        if self._geometry is None:
            return
        path = None if output is None or not case_id else marks_path(output / "journals", case_id)
        known = self._marks
        if known is not None and (known.shape, known.path, self._marks_of) == (self._geometry.shape, path, case_id):
            return
        self._deeds, self._marks_of = {}, case_id
        try:
            self._marks = Marks(self._geometry.shape, path)
        except Seg3dError as error:
            self.said.emit("warning", str(error))
            self._marks = Marks(self._geometry.shape)

    @property
    def _among(self) -> str:
        """What marks belong to: a list without a truth, the truth, or the file or layer of another rater."""
        if self.chosen != DISAGREEMENTS or self._against is None:
            return self.chosen
        origin = origin_or_none(self._against)
        if origin is not None and origin.role == "truth":
            return "truth"
        path = None if origin is None else origin.path
        return self._against.name if path is None else f"{path.parent.name}/{path.name}"

    def follow(self, comparison: Comparison) -> None:
        """Take over what an edit has made of the comparison."""
        self._comparison = comparison
        if self.chosen == DISAGREEMENTS:
            self._list_anew()

    def look_again(self) -> None:
        """Look for places without a truth anew: the labels were edited, or layers have come or gone."""
        self._list_sources()
        if self.chosen != DISAGREEMENTS and self.isVisible():
            self._look_for()

    @property
    def chosen(self) -> str:
        """What is stepped through: `DISAGREEMENTS`, `UNCERTAIN` or `IMPLAUSIBLE`."""
        return self.source.currentData() or IMPLAUSIBLE

    def _list_sources(self) -> None:
        names = [DISAGREEMENTS] if self._comparison is not None else []
        if self.uncertainty_layer() is not None or self.uncertainty_file() is not None:
            names.append(UNCERTAIN)
        names.append(IMPLAUSIBLE)
        if names == [self.source.itemData(i) for i in range(self.source.count())]:
            return
        before = self.source.currentData()
        had_truth = self.source.findData(DISAGREEMENTS) >= 0
        self.source.clear()
        for name in names:
            self.source.addItem(_SOURCES[name][0], name)
            self.source.setItemData(self.source.count() - 1, _SOURCES[name][1], Qt.ItemDataRole.ToolTipRole)
        if before in names and (had_truth or names[0] != DISAGREEMENTS):
            self.source.setCurrentIndex(names.index(before))
        if self.chosen != before:
            self._change_source()

    def _change_source(self) -> None:
        self._current, self._number = None, -1
        self._found = ()
        self._draw(None)
        if self.chosen != DISAGREEMENTS and self.isVisible():
            self._look_for()
        self._list_anew()

    def showEvent(self, event: object) -> None:  # Qt's name
        """Look for places when they are first seen."""
        super().showEvent(event)
        if self.chosen != DISAGREEMENTS and not self._found:
            self._look_for()

    def uncertainty_layer(self) -> Image | None:
        """Return the layer that says where the model hesitated, on the grid of the labels, if there is one."""
        for layer in reversed(self._viewer.layers):
            origin = origin_or_none(layer)
            if (
                isinstance(layer, Image)
                and origin is not None
                and self._geometry is not None
                and layer.name.endswith("uncertainty")
                and origin.geometry.same_grid(self._geometry)
            ):
                return layer
        return None

    def uncertainty_file(self) -> Path | None:
        """Return what `predict --uncertainty` has written beside the newest prediction of the open case."""
        case_id = self._workspace.case_id
        if case_id is None or self._layer is None or self._marks_of != case_id:
            return None
        files = (uncertainty_of(case_id, path) for path in self._workspace.predictions.get(case_id, ()))
        return next((file for file in files if file.is_file()), None)

    def _look_for(self) -> None:
        if self._search is not None:
            self._workspace.quick.drop(self._search)
            self._search = None
        if self._layer is None or self._geometry is None:
            return
        uncertainty: Volume | Path | None = None
        if self.chosen == UNCERTAIN:
            layer, uncertainty = self.uncertainty_layer(), self.uncertainty_file()
            if layer is not None:
                uncertainty = Volume(stored(np.asarray(layer.data), self._geometry), self._geometry)
        try:
            kwargs = {"labels": snapshot(self._layer), "uncertainty": uncertainty}
        except Seg3dError as error:
            self.said.emit("error", str(error))
            return
        task = "napari_seg3d.gui.tasks:find_stops"
        self._search = Job("Looking for places", task, kwargs, "thread", "stops", quick=True)
        self._workspace.start(self._search)

    def take_event(self, job: Job, event: Event) -> None:
        """Take over what the search has found."""
        if job is self._search and isinstance(event, Finished):
            self._search = None
            self._found = event.result
            self._list_anew()
        elif job is self._search and isinstance(event, Failed):
            self._search = None
            self.said.emit("warning", event.message)
            self._list_anew()

    # The list

    def _list_anew(self) -> None:
        places: Sequence[Place] = self._found
        if self.chosen == DISAGREEMENTS:
            places = self._comparison.places if self._comparison is not None else ()
        self._standing = ()
        if self._marks is not None and self._marks and self._layer is not None:
            labels, among = self._labels(), self._among
            self._standing = self._marks.standing(among, labels)
            places = [place for place in places if not self._marks.settles(among, place.indices, labels)]
        if self.order.currentData() == "slices" and self._geometry is not None:
            places = self._by_slice(places)
        self._places = tuple(places)
        if self._current is not None:
            self._find_again(self._current)
        self._say()

    def _by_slice(self, places: Sequence[Place]) -> Sequence[Place]:
        if self._geometry is None:
            return places
        dims = self._viewer.dims
        wanted = int(dims.order[dims.ndim - 3]) - dims.ndim + 3 if dims.ndim >= 3 else 0
        to_screen = self._geometry.orientation_to(SCREEN)
        axis = next(axis for axis in range(3) if int(to_screen[axis][0]) == wanted)
        sign = int(to_screen[axis][1])
        return sorted(places, key=lambda place: (sign * place.centre_voxel[axis], -place.volume_ml))

    @property
    def places(self) -> tuple[Place, ...]:
        """What is on the list."""
        return self._places

    def axis_changed(self) -> None:
        """List anew if the order is that of the slices, which go along another axis now."""
        if self.order.currentData() == "slices":
            self._list_anew()

    def _find_again(self, place: Place) -> None:
        """Stand on what has become of a place, or between its neighbours."""
        for number, one in enumerate(self._places):
            if one is place:
                self._number = number
                return
        part = None
        if isinstance(place, Disagreement) and self._comparison is not None:
            part = self._comparison.live.disagreement_at(place.centre_voxel)
        if part is not None and part in self._places:
            self._current, self._number = part, self._places.index(part)
        else:
            self._current = None
        # With a decision comes the next place.
        self._draw(self._current, refresh=not self._deciding)

    def step(self, by: int) -> None:
        """Go to the next place (1) or the one before (-1)."""
        if not self._places or self._geometry is None:
            return
        if self._current is None and self._number >= 0 and by > 0:
            # The place is done, and its number has passed to the next one.
            by = 0
        self._go_to(self._number + by)

    def _go_to(self, number: int) -> None:
        self._number = min(max(number, 0), len(self._places) - 1)
        place = self._current = self._places[self._number]
        assert self._geometry is not None
        voxel = voxel_on_screen(place.centre_voxel, self._geometry)
        dims = self._viewer.dims
        before = dims.current_step
        # Drawn anew with the slice that is gone to, and not once more.
        self._draw(place, refresh=False)
        dims.set_current_step(tuple(range(dims.ndim - 3, dims.ndim)), tuple(int(index) for index in voxel))
        if self._outline is not None and self._slice_of(before) == self._slice_of(dims.current_step):
            self._outline.refresh(extent=False, thumbnail=False, highlight=False)
        self.went.emit(voxel)
        layer = self._layer
        if layer is not None and self._edits is not None:
            self._viewer.layers.selection.active = layer
            stop = self._stop(place)
            if stop.label:
                layer.selected_label = stop.label
        self._say()

    def _slice_of(self, step: Sequence[int]) -> tuple[int, ...]:
        """What of a step of the sliders is not within the picture."""
        return tuple(step[axis] for axis in self._viewer.dims.not_displayed)

    def _stop(self, place: Place) -> Stop:
        if isinstance(place, Stop):
            return place
        assert self._other is not None
        return disagreement_stops([place], self._label_map(), self._other, raters=self._short_raters())[0]

    def _short_raters(self) -> tuple[str, str] | None:
        return None if self.raters is None else (shortened(self.raters[0]), shortened(self.raters[1]))

    def _labels(self) -> NDArray[Any]:
        """The layer's labels (X, Y, Z) as they are now: a view."""
        assert self._layer is not None
        assert self._geometry is not None
        return stored(np.asarray(self._layer.data), self._geometry)

    def _label_map(self) -> LabelMap:
        """Map of the layer as it is now, sharing its voxels."""
        assert self._layer is not None
        assert self._geometry is not None
        origin = origin_or_none(self._layer)
        table = LabelTable() if origin is None else origin.table
        return LabelMap(self._labels(), self._geometry, table)

    def _say(self) -> None:
        count = len(self._places)
        verdicts = [mark.verdict for mark in self._standing]
        marked = "".join(f" · {verdicts.count(what)} {what}" for what in ("kept", "checked") if what in verdicts)
        if not count:
            text = self._nothing()
        elif self._current is None:
            left = position_in_words(self._places, 0).split(", ")[-1]  # type: ignore[arg-type]  # has a volume, too
            text = f"{count} place{'s' if count > 1 else ''}, {left}"
        else:
            position = position_in_words(self._places, self._number)  # type: ignore[arg-type]
            text, marked = f"{position}{marked}\n{self._stop(self._current).words}", ""
        self.where.setText(text + marked)
        self.back.setEnabled(count > 0 and self._number > 0)
        self.on.setEnabled(count > 0 and (self._number < count - 1 or self._current is None))
        here, editable = self._current is not None, self._edits is not None
        mendable = not isinstance(self._current, Stop) or self._current.kind in (ISLAND, HOLE)
        self.accept.setEnabled(here and editable and mendable)
        self.keep.setEnabled(here)
        self.check.setEnabled(here)
        self.uncheck.setEnabled(bool(self._standing))
        self._name_buttons()

    def _name_buttons(self) -> None:
        keep, keeping = "Keep", "The prediction is right here: take the place off the list"
        if self.chosen != DISAGREEMENTS:
            take, taking = "Mend", "Remove this island, fill this hole"
            keeping = "It is right as it is: take the place off the list"
        elif (raters := self.raters) is not None:
            mine, other = raters
            take, keep = f"Take {shortened(other, 9)}", f"Keep {shortened(mine, 9)}"
            taking = f"{other} is right here: take its labels for this place, one step to undo"
            keeping = f"{mine} is right here: take the place off the list"
        else:
            take, taking = "Take truth", "The truth is right here: take its labels for this place, one step to undo"
        for button, text, tooltip, key in (
            (self.accept, take, taking, "accept_place"),
            (self.keep, keep, keeping, "keep_place"),
        ):
            if button.text() != text:
                button.setText(text)
            if button.toolTip() != with_key(tooltip, key):
                button.setToolTip(with_key(tooltip, key))

    def _nothing(self) -> str:
        if self._search is not None:
            return "Looking…"
        if self._standing:
            return "Nothing left"
        if self.chosen != DISAGREEMENTS:
            return "Nothing found."
        differ = self._comparison is not None and self._comparison.live.left_ml > 0
        return f"Only places of less than {SMALLEST_PLACE} voxels differ." if differ else "No disagreement."

    # Deciding

    def accept_place(self) -> None:
        """Take the truth's version of the place; remove an island, fill a hole."""
        place, edits, layer = self._current, self._edits, self._layer
        if place is None or layer is None:
            return
        if edits is None:
            self.said.emit("warning", f"The layer {layer.name} is locked. Press “Edit a copy” to correct it.")
            return
        try:
            stop = self._stop(place)
            if isinstance(place, Stop):
                change = mend(stop, edits.labels)
            else:
                assert self._other is not None
                change = accept(stop, edits.labels, self._other.data)
                if self.raters is not None:
                    change = replace(change, what=f"Take {self.raters[1]}: {stop.words}")
        except Seg3dError as error:
            self.said.emit("warning", str(error))
            return
        self._deciding = True
        try:
            edits.make(change)
        finally:
            self._deciding = False
        if isinstance(place, Stop):
            # A new search follows when the user pauses.
            self._found = tuple(one for one in self._found if one is not place)
            self._list_anew()
        self._after_decision()

    def keep_place(self) -> None:
        """Take the place off the list: the prediction is right."""
        self._settle("kept")

    def check_place(self) -> None:
        """Take the place off the list: it was looked at."""
        self._settle("checked")

    def _settle(self, verdict: str) -> None:
        place, marks = self._current, self._marks
        if place is None or marks is None or self._layer is None:
            return
        words = self._stop(place).words
        mark = Mark.on(place.indices, self._labels(), verdict, words, self._among, author=user())
        self._deciding = True
        try:
            self._set_mark(marks, mark, True)
        finally:
            self._deciding = False
        if self._edits is not None:
            self._deeds[mark.id] = self._deed(f"{verdict.capitalize()}: {words}", mark, True)
            self._edits.note(self._deeds[mark.id])
        self._after_decision()

    def uncheck_place(self) -> None:
        """Put the place that was kept or checked last back on the list, and go there."""
        if not self._standing or self._marks is None:
            return
        mark = self._standing[-1]
        deed, edits = self._deeds.get(mark.id), self._edits
        if edits is not None and deed is not None and edits.is_newest(deed):
            edits.layer.undo()
            edits.look()
            return
        # Other edits came after it, or it is of another day.
        self._set_mark(self._marks, mark, False)
        if edits is not None:
            edits.note(self._deed(f"Back on the list: {mark.what}", mark, False))

    def _deed(self, what: str, mark: Mark, sets: bool) -> Deed:
        """Return what undoes and redoes the setting of a mark (or its taking back), among the edits of the layer."""
        this, marks = weakref.ref(self), self._marks
        assert marks is not None

        def set_mark(on: bool) -> None:
            section = this()
            # Qt may have deleted the page that the mark was made on.
            with contextlib.suppress(RuntimeError):
                if section is not None:
                    section._set_mark(marks, mark, on)

        return Deed(what, partial(set_mark, not sets), partial(set_mark, sets))

    def _set_mark(self, marks: Marks, mark: Mark, on: bool) -> None:
        try:
            (marks.add if on else marks.take_back)(mark)
        except Seg3dError as error:
            self.said.emit("warning", str(error))
        if marks is not self._marks:
            return
        if not on:
            self._current = None
        self._list_anew()
        if on or mark.among != self._among:
            return
        centres = np.array([place.centre_voxel for place in self._places], np.intp).reshape(-1, 3)
        inside = np.isin(np.ravel_multi_index(tuple(centres.T), marks.shape), mark.voxels)
        if inside.any():
            self._go_to(int(np.argmax(inside)))

    def _after_decision(self) -> None:
        if self.goes_on.isChecked() and self._places and self._current is None:
            self.step(1)
        else:
            self._draw(self._current)
            self._say()

    # The outline

    def _draw(self, place: Place | None, *, refresh: bool = True) -> None:
        """Draw a line around a place, in all slices; without `refresh` the picture follows later."""
        if place is None and self._outline is None:
            return
        if self._outline is not None and self._outline not in self._viewer.layers:
            self._outline = self._outlined = None
        if self._geometry is None:
            return
        if self._outline is None:
            if place is None:
                return
            self._outline = self._new_outline(self._geometry)
        if self._outlined is not None:
            self._outline.data[self._outlined] = 0
        self._outlined = None if place is None else _on_layer(place.indices, self._geometry)
        if self._outlined is not None:
            self._outline.data[self._outlined] = 1
        if refresh:
            self._outline.refresh(extent=False, thumbnail=False, highlight=False)

    def _new_outline(self, geometry: Geometry) -> Labels:
        empty = np.zeros(geometry.shape, np.uint8)
        layer = difference_layer(empty, geometry, name="place", case_id=self._workspace.case_id or "", table=_OUTLINE)
        layer.contour = 1
        layer.opacity = 1.0
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        # The user goes on with the layer that he was painting on.
        self._viewer.layers.selection.active = active
        return layer

    def close_outline(self) -> None:
        """Take the outline away."""
        layer, self._outline, self._outlined = self._outline, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def raters_of(mine: Labels | None, other: Labels | None) -> tuple[str, str] | None:
    """Return what two layers are called where neither is a truth: who saved them, if they are two, else their names."""
    if mine is None or other is None:
        return None
    origin, against = origin_or_none(mine), origin_or_none(other)
    if origin is None or against is None or "truth" in (origin.role, against.role):
        return None
    if len(origin.raters) == 2:
        return origin.raters[0], origin.raters[1]
    one, two = ("" if each.path is None else author_of(each.path) for each in (origin, against))
    return (one, two) if one and two and one != two else (mine.name, other.name)


def _on_layer(indices: Indices, geometry: Geometry) -> tuple[NDArray[np.intp], ...]:
    return on_layer(Change(indices, np.ones(len(indices[0]), np.uint8), "Outline"), geometry)
