"""The tools of the Review page: brushes and buttons that correct the active label, each one step to undo."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..correction.brushes import brush, polygon, threshold_brush
from ..correction.change import Change
from ..correction.masks import Where
from ..errors import Seg3dError
from ..events import Event, Failed, Finished
from ..volumes.volume import Label, LabelMap, LabelTable
from .editors import WheelGuard, combo
from .keys import bind_keys, with_key
from .layers import origin_or_none, stored
from .session import session_for
from .tool_options import NO_ARROW, TITLE_WIDTH, RangeRow, ToolOptions, fill_choice, icon_of, spin
from .tool_pointer import Drag, Place, Pointer, clicking, drawing, painting, through_voxels
from .tool_preview import SEEDS, helping_layer, preview_layer, remove_layer
from .tool_runs import Bench, change_in_words
from .widgets import Section, listen, quiet_label
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from .edits import Edit, LayerEdits
    from .workspace import Workspace

#: Milliseconds after a changed setting until the preview is made anew.
SETTLE_MS = 200


@dataclass(frozen=True, eq=False)
class _Use:
    """A tool that was asked for: its name in `tool_runs.TOOLS`, and what gives its settings, now and after changes."""

    name: str
    settings: Callable[[], Mapping[str, Any]]
    #: Whether pressing its button again means: do it.
    repeats: bool = True


@dataclass(frozen=True, eq=False)
class _Shown:
    """A change that is shown and not yet made, of which tool, and after how many edits of the layer it was found."""

    use: _Use
    change: Change
    edits: int


class ToolsSection(Section):
    """All tools, for the layer that is chosen in a box.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    choice : QComboBox
        Its current data is the layer to correct.
    """

    def __init__(self, workspace: Workspace, viewer: Viewer, choice: QComboBox, parent: QWidget | None = None) -> None:
        super().__init__("Tools", tooltip="Show or hide the tools that correct the active label", parent=parent)
        self._workspace, self._viewer, self._choice = workspace, viewer, choice
        self._view = session_for(viewer).view
        self._layer: Labels | None = None
        self._edits: LayerEdits | None = None
        self._count = 0
        self._job: Job | None = None
        self._running: _Use | None = None
        self._running_after = 0
        self._shown: _Shown | None = None
        self._preview_layer: Labels | None = None
        self._seeds_layer: Labels | None = None
        self._stroke_on: Bench | None = None
        self.pointer = Pointer(viewer)
        self.options = ToolOptions(workspace, viewer)
        self.buttons: dict[str, QPushButton] = {}
        self._build()
        self._later = _timer(self, 0, self._follow_choice)
        self._settle = _timer(self, SETTLE_MS, self._preview_anew)
        choice.currentIndexChanged.connect(lambda _: self._later.start())
        self.options.changed.connect(self._settings_changed)
        self.options.label_changed.connect(self._seed_label)
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.job_ended, self._job_ended)
        listen(self, viewer.layers.events.removed, self._layer_removed)
        listen(self, viewer.layers.events.inserted, self._list_others)
        listen(self, self._view.edited, self._look_again)
        bind_keys(
            viewer,
            self,
            {
                "ball_brush": lambda one: one.press("ball"),
                "threshold_brush": lambda one: one.press("threshold"),
                "lasso": lambda one: one.press("lasso"),
                "fill_between": lambda one: one.press("between"),
                "keep_largest": lambda one: one.press("largest"),
                "remove_island": lambda one: one.press("remove clicked"),
                "fill_holes": lambda one: one.press("holes"),
                "smooth": lambda one: one.press("smooth"),
                "grow_from_seeds": lambda one: one.press("seeds"),
                "apply_tool": lambda one: one.apply(),
                "cancel_tool": lambda one: one.cancel(),
            },
        )
        self._enable()
        self.set_open(bool(workspace.settings.get("tools_open", False)))
        self.toggled.connect(lambda on: workspace.settings.set("tools_open", on))
        self._later.start()

    # What it is made of

    def _build(self) -> None:
        self.body.addWidget(self.options)
        self._radius = spin("Radius of the brushes", 3, 0.1, 100, 0.5, "mm")
        self._radius.valueChanged.connect(lambda mm: self.pointer.set_diameter(2 * mm if self._is_brush() else 0))
        self._image = combo("The image whose intensities the threshold brush looks at")
        self._image.setMinimumContentsLength(3)
        self._image.activated.connect(self._suggest_range)
        self._range = RangeRow("The threshold brush paints intensities from here to there")
        self._smallest = spin("Parts below this volume go", 0.1, 0.001, 1000, 0.05, "ml")
        self._kernel = spin("Diameter of the ball in which labels are counted", 3, 0.1, 50, 0.5, "mm")
        self._margin = spin("By how much to grow or shrink", 1, 0.1, 50, 0.5, "mm")
        self._into = combo("The label that the split-off part, or what is relabelled, gets")
        self._other = combo("The layer, or label, to copy from and to combine with")
        self._seed_images = QToolButton()
        self._seed_images.setToolTip("Images whose edges stop the growing")
        self._seed_images.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._seed_images.setMenu(QMenu(self._seed_images))
        self._seed_images.setStyleSheet(NO_ARROW)
        grid = QGridLayout()
        grid.setContentsMargins(0, 4, 0, 0)
        grid.setColumnStretch(1, 1)
        for row, (name, widgets) in enumerate(self._rows()):
            line = QHBoxLayout()
            line.setSpacing(4)
            for widget in widgets:
                line.addWidget(widget, 1 if isinstance(widget, QPushButton | QComboBox | RangeRow) else 0)
            title = QLabel(name)
            title.setMinimumWidth(TITLE_WIDTH)
            grid.addWidget(title, row, 0)
            grid.addLayout(line, row, 1)
        self.body.addLayout(grid)
        self.body.addWidget(self._build_preview())
        self._guard = WheelGuard()
        self._guard.watch(self)
        for box in (self._smallest, self._kernel, self._margin):
            box.valueChanged.connect(lambda _: self._settings_changed())
        for choice in (self._into, self._other):
            choice.activated.connect(lambda _: self._settings_changed())

    def _rows(self) -> Sequence[tuple[str, Sequence[QWidget]]]:
        return (
            (
                "Brush",
                (
                    self._armed("ball", "Ball", "Paint with a ball (a disc in one slice); Shift erases", "ball_brush"),
                    self._armed(
                        "threshold", "Threshold", "Paint only intensities in the range below", "threshold_brush"
                    ),
                    self._radius,
                ),
            ),
            ("", (self._image, self._range)),
            (
                "Outline",
                (
                    self._armed("lasso", "Lasso", "Draw around what shall have the active label", "lasso"),
                    self._runs(
                        "between",
                        "Fill between slices",
                        "Paint a few slices, then fill those between them along the slider",
                        "fill_between",
                    ),
                ),
            ),
            (
                "Islands",
                (
                    self._runs("largest", "Keep largest", "Keep only the largest connected part", "keep_largest"),
                    self._armed("keep clicked", "Keep clicked", "Click the only connected part to keep"),
                ),
            ),
            (
                "",
                (
                    self._armed("remove clicked", "Remove clicked", "Click connected parts to remove", "remove_island"),
                    self._runs("smaller", "Below", "Remove connected parts of the active label below this volume"),
                    self._smallest,
                ),
            ),
            (
                "Shape",
                (
                    self._runs("holes", "Fill holes", "Fill what the active label encloses", "fill_holes"),
                    self._runs("smooth", "Smooth", "Every voxel takes the most frequent label around it", "smooth"),
                    self._kernel,
                ),
            ),
            (
                "",
                (
                    self._runs("grow", "Grow", "Grow the active label over background"),
                    self._runs("shrink", "Shrink", "Shrink the active label"),
                    self._margin,
                ),
            ),
            (
                "Seeds",
                (
                    self._plain("seed label", "Label", "Scribble where the active label is", self.scribble),
                    self._plain(
                        "seed outside", "Not it", "Scribble where none of the labels is", partial(self.scribble, True)
                    ),
                    self._runs(
                        "seeds", "Grow", "Grow all scribbles until they meet at edges of the images", "grow_from_seeds"
                    ),
                    self._plain("seed clear", "Clear", "Take all scribbles away", self.clear_seeds),
                    self._seed_images,
                ),
            ),
            (
                "Split",
                (
                    self._armed("plane", "By a line", "Draw a line across the active label: the smaller side leaves"),
                    self._armed(
                        "scribbles",
                        "By scribbles",
                        "Scribble on the part that stays, then on the one that leaves: the cut is at the neck",
                    ),
                ),
            ),
            (
                "Relabel",
                (
                    self._runs("relabel", "All of it", "Give the whole active label the label below"),
                    self._armed("relabel clicked", "Clicked part", "Click connected parts to relabel"),
                ),
            ),
            ("into", (self._into,)),
            (
                "Combine",
                (
                    self._runs("union", "Add", "Add the label below to the active one"),
                    self._runs("intersection", "Keep both", "Keep of the active label what lies in the one below"),
                    self._runs("difference", "Take away", "Take the label below away from the active one"),
                ),
            ),
            ("with", (self._other, self._armed("copy", "Copy clicked", "Click a part of that layer to copy it"))),
        )

    def _build_preview(self) -> QWidget:
        self._first = QCheckBox("Preview first")
        self._first.setToolTip("Show what a button would change before it is done; brushes paint at once")
        self._first.setChecked(bool(self._workspace.settings.get("preview_tools", True)))
        self._first.toggled.connect(lambda on: self._workspace.settings.set("preview_tools", on))
        self._apply = QPushButton("Apply")
        self._apply.setToolTip(
            with_key("Do what the preview shows; pressing the tool's button again does it, too", "apply_tool")
        )
        self._apply.clicked.connect(lambda _=False: self.apply())
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip(with_key("Leave everything as it is", "cancel_tool"))
        self._cancel.clicked.connect(lambda _=False: self.cancel())
        self.words = quiet_label()
        line = QHBoxLayout()
        line.addWidget(self._first, 1)
        line.addWidget(self._apply)
        line.addWidget(self._cancel)
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.words)
        self._show_preview_state()
        return box

    def _plain(self, name: str, text: str, tooltip: str, action: Callable[[], object], key: str = "") -> QPushButton:
        button = self.buttons[name] = QPushButton(text)
        button.setToolTip(with_key(tooltip, key) if key else tooltip)
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        button.setMinimumWidth(button.fontMetrics().horizontalAdvance(text) + 12)
        button.clicked.connect(lambda _=False: action())
        return button

    def _runs(self, name: str, text: str, tooltip: str, key: str = "") -> QPushButton:
        return self._plain(name, text, tooltip, partial(self.use, name), key)

    def _armed(self, name: str, text: str, tooltip: str, key: str = "") -> QPushButton:
        button = self._plain(name, text, tooltip, partial(self._toggle_mouse, name), key)
        button.setCheckable(True)
        return button

    def press(self, name: str) -> None:
        """Press a tool's button, if there is a layer to correct."""
        if self.buttons[name].isEnabled():
            # What it says must be seen.
            self.set_open(True)
            self.buttons[name].click()

    # Which layer

    @property
    def layer(self) -> Labels | None:
        """The layer that is corrected."""
        return self._layer

    def _follow_choice(self) -> None:
        layer = self._choice.currentData()
        edits, words = None, ""
        try:
            edits = None if layer is None else self._view.edits_of(layer)
        except Seg3dError as error:
            words = str(error)
        if layer is self._layer and edits is self._edits:
            return
        self.pointer.disarm()
        self.cancel()
        self._leave()
        self._layer = layer
        self._edits = edits
        self.words.setText(words)
        if edits is not None:
            edits.made.connect(self._after_edit)
            edits.held_back.connect(self._say_held_back)
            edits.rule = _rule_of(self)
        self.options.show_layer(layer if self._edits is not None else None)
        self._list_others()
        self._enable()
        self._show_preview_state()

    def _enable(self) -> None:
        for widget in (self.options, *self.buttons.values()):
            widget.setEnabled(self._edits is not None)

    def _look_again(self, _layer: Labels) -> None:
        # A layer of the user's own can be corrected once it stands on the case's grid.
        self._later.start()

    def _leave(self) -> None:
        if self._edits is not None:
            self._edits.made.disconnect(self._after_edit)
            self._edits.held_back.disconnect(self._say_held_back)
            self._edits.rule = None
        self._edits = self._stroke_on = None
        self._job = self._running = None

    def _layer_removed(self) -> None:
        if self._seeds_layer not in self._viewer.layers:
            self._seeds_layer = None
        if self._preview_layer is not None and self._preview_layer not in self._viewer.layers:
            self._preview_layer = self._shown = None
            self._show_preview_state()
        self._list_others()

    def _list_others(self) -> None:
        if self._edits is None:
            return
        table, mine = self.options.table, self.options.label
        labels = [(icon_of(label), label.name, label.value) for label in table]
        fill_choice(self._into, labels, lambda value: value != mine)
        fill_choice(self._image, [(None, name, name) for name in self.options.images()], lambda _: True)
        if self._range.values() == (0, 0):
            self._suggest_range()
        others: list[Any] = [(icon_of(label), label.name, ("", label.value)) for label in table]
        for name, layer in self.options.other_layers().items():
            origin = origin_or_none(layer)
            names = origin.table if origin is not None else LabelTable()
            others += [(icon_of(label), f"{name}: {label.name}", (name, label.value)) for label in names]
        fill_choice(self._other, others, lambda value: bool(value[0]))
        self._list_seed_images()

    def _suggest_range(self) -> None:
        if self._image.currentData() is not None:
            low, high = self.options.contrast(self._image.currentData())
            self._range.suggest(low + 0.5 * (high - low), high)

    # Using tools

    def use(self, name: str) -> None:
        """Run a tool: show what it would change, or do it at once; pressed again, do what is shown."""
        shown = self._shown
        if shown is not None and shown.use.repeats and shown.use.name == name and not self._settle.isActive():
            self.apply()
            return
        self._start(_Use(name, partial(self._settings_of, name)))

    def _settings_of(self, name: str) -> Mapping[str, Any]:
        if name == "between":
            return {"all_labels": self.options.all_labels}
        if name == "smaller":
            return {"smallest_ml": self._smallest.value()}
        if name == "smooth":
            return {"kernel_mm": self._kernel.value(), "all_labels": self.options.all_labels}
        if name in ("grow", "shrink"):
            return {"margin_mm": self._margin.value()}
        if name == "seeds":
            return self._seed_settings()
        if name == "relabel":
            return {"new_value": self._into.currentData()}
        if name in ("union", "intersection", "difference"):
            layer, value = self._other.currentData() or ("", 0)
            other = self.options.map_of(layer) if layer else self._labels()
            return {"other": other, "value": value, "operation": name}
        return {}

    def _labels(self) -> Any:
        """A copy of the layer's labels: the user may paint on while a tool works."""
        assert self._edits is not None
        return np.array(self._edits.labels, order="K")

    def _start(self, use: _Use) -> None:
        if self._edits is None:
            return
        try:
            tool = "combine" if use.name in ("union", "intersection", "difference") else use.name
            kwargs = {"name": tool, "bench": self.options.bench(self._labels()), "settings": use.settings()}
        except Seg3dError as error:
            self.refuse(str(error))
            return
        if self._job is not None:
            self._workspace.quick.drop(self._job)
        self._running, self._running_after = use, self._count
        title = "Growing …" if tool == "seeds" else "Working on labels"
        self._job = Job(title, "napari_seg3d.gui.tool_runs:use_tool", kwargs, "thread", "tool", quick=True)
        if tool == "seeds":
            self.words.setText(title)
        self._workspace.start(self._job)

    def _take_event(self, job: Job, event: Event) -> None:
        use = self._running
        if job is not self._job or use is None or self._edits is None:
            return
        if isinstance(event, Failed):
            self.refuse(event.message)
        elif isinstance(event, Finished):
            if self._count != self._running_after:
                # It was found on labels that are no more.
                self._start(use)
                return
            self._show(use, event.result)

    def _job_ended(self, job: Job, _how: str) -> None:
        if job is self._job:
            self._job = self._running = None

    def _show(self, use: _Use, change: Change) -> None:
        assert self._edits is not None
        assert self._layer is not None
        geometry, table = self.options.geometry_of_layer, self.options.table
        words = change_in_words(change, self._edits.labels, geometry, table)
        if not len(change) or not self._first.isChecked():
            self._remove_preview()
            if self._edits.make(change):
                words = f"{words}. Ctrl+Z takes it back."
            self.words.setText(words)
            return
        origin = origin_or_none(self._layer)
        with self.pointer.held():
            remove_layer(self._viewer, self._preview_layer)
            self._preview_layer = preview_layer(change, geometry, table, origin.case_id if origin else "")
            self._viewer.add_layer(self._preview_layer)
        self._shown = _Shown(use, change, self._count)
        self.words.setText(words)
        self._show_preview_state()

    def apply(self) -> None:
        """Do what the preview shows."""
        shown = self._shown
        if shown is None or self._edits is None:
            return
        if shown.edits != self._count:
            self._start(shown.use)
            return
        self._remove_preview()
        self._edits.make(shown.change)
        self.words.setText(f"{shown.change.what}: done. Ctrl+Z takes it back.")

    def cancel(self) -> None:
        """Forget the preview, and a tool that is still working."""
        if self._job is not None:
            self._workspace.quick.drop(self._job)
            self._job = self._running = None
        if self._shown is not None:
            self.words.clear()
        self._remove_preview()

    def _remove_preview(self) -> None:
        layer, self._preview_layer, self._shown = self._preview_layer, None, None
        self._settle.stop()
        with self.pointer.held():
            remove_layer(self._viewer, layer)
        self._show_preview_state()

    def _show_preview_state(self) -> None:
        for button in (self._apply, self._cancel):
            button.setVisible(self._shown is not None)

    def refuse(self, words: str) -> None:
        """Say why something was not done."""
        self._remove_preview()
        self.words.setText(words)

    def _after_edit(self, edit: Edit) -> None:
        self._count += 1
        if self._shown is not None:
            self._settle.start()

    def rule(self) -> Where | None:
        """Return what strokes of napari's own tools may change; None if nothing is locked or left out."""
        if self._layer is None or not self.options.restricts:
            return None
        try:
            return self.options.where()
        except Seg3dError as error:
            self.refuse(str(error))
            return Where(locked=self.options.locked)

    def _say_held_back(self, voxels: int) -> None:
        self.words.setText(f"{voxels} voxels were not painted: their label is locked, or “Paint only” leaves them out.")

    def _settings_changed(self) -> None:
        if self._shown is not None:
            self._settle.start()

    def _preview_anew(self) -> None:
        if self._shown is not None:
            self._start(self._shown.use)

    # The mouse

    def _is_brush(self) -> bool:
        return self.buttons["ball"].isChecked() or self.buttons["threshold"].isChecked()

    def _toggle_mouse(self, name: str) -> None:
        layer, on = self._layer, self.buttons[name].isChecked()
        self.pointer.disarm()
        if not on or layer is None or self._edits is None:
            return
        self.buttons[name].setChecked(True)
        self.words.setText(_HINTS[name])
        diameter = 2 * self._radius.value() if name in ("ball", "threshold") else 0
        self.pointer.arm(layer, self._drag(name, self._edits), partial(self._disarmed, name), diameter_mm=diameter)

    def _disarmed(self, name: str) -> None:
        self.buttons[name].setChecked(False)

    def _drag(self, name: str, edits: LayerEdits) -> Drag:
        if name == "ball":
            return painting(edits, "Ball brush", self._paint, self.refuse)
        if name == "threshold":
            return painting(edits, "Threshold brush", self._paint_by_threshold, self.refuse)
        if name == "lasso":
            return drawing(self._fill_lasso)
        if name == "plane":
            return drawing(self._split_by_line, straight=True)
        if name == "scribbles":
            return drawing(self._split_by_scribbles(edits))
        return clicking(partial(self._use_at, name))

    def _stroke(self, part: Sequence[Place], erase: bool) -> tuple[Bench, dict[str, Any]]:
        """Return what a brush works on, and how: found at the first place of a stroke, and the same to its end."""
        assert self._edits is not None
        if len(part) == 1 or self._stroke_on is None:
            self._stroke_on = self.options.bench(self._edits.labels)
        bench = self._stroke_on
        where = bench.where
        if erase and where.inside is None:
            # Erasing takes the active label away, not its neighbours.
            where = replace(where, inside=(bench.label,))
        return bench, {
            "radius_mm": self._radius.value(),
            "axis": bench.axis if bench.flat else None,
            "where": where,
        }

    def _paint(self, part: Sequence[Place], erase: bool) -> Change:
        bench, how = self._stroke(part, erase)
        return brush(bench.labels, bench.geometry, 0 if erase else bench.label, part, **how)

    def _paint_by_threshold(self, part: Sequence[Place], erase: bool) -> Change:
        bench, how = self._stroke(part, erase)
        image = self.options.images().get(self._image.currentData())
        if image is None:
            raise Seg3dError("The threshold brush needs an image on the labels' grid; open a case with images.")
        low, high = self._range.values()
        value = 0 if erase else bench.label
        return threshold_brush(
            bench.labels, bench.geometry, value, part, image, lowest=low, highest=high, **how
        )  # fmt: skip

    def _fill_lasso(self, points: list[Place]) -> None:
        if self._edits is None or len(points) < 3:
            return
        bench = self.options.bench(self._edits.labels)
        try:
            change = polygon(
                bench.labels, bench.label, points, axis=bench.axis, first=bench.index, where=bench.where
            )  # fmt: skip
        except Seg3dError as error:
            self.refuse(str(error))
        else:
            self._edits.make(change)

    def _use_at(self, name: str, place: Place) -> None:
        self._start(_Use(name, partial(self._settings_at, name, place), repeats=False))

    def _settings_at(self, name: str, place: Place) -> Mapping[str, Any]:
        settings: dict[str, Any] = {"voxel": place}
        if name == "relabel clicked":
            settings["new_value"] = self._into.currentData()
        elif name == "copy":
            layer, _ = self._other.currentData() or ("", 0)
            if not layer:
                raise Seg3dError("Choose another layer to copy from; there must be one on the same grid.")
            settings["other"] = self.options.map_of(layer)
        return settings

    def _split_by_line(self, points: list[Place]) -> None:
        if len(points) > 1:
            start, end = points[0], points[-1]
            self._start(_Use("plane", lambda: self._split_into({"start": start, "end": end}), repeats=False))

    def _split_by_scribbles(self, edits: LayerEdits) -> Callable[[list[Place]], None]:
        stays: list[Any] = []

        def take(points: list[Place]) -> None:
            scribble = through_voxels(points, edits.labels.shape)
            if not stays:
                stays.append(scribble)
                self.words.setText("Now scribble on the part that leaves.")
                return
            both = {"stays": stays.pop(), "leaves": scribble}
            self._start(_Use("scribbles", lambda: self._split_into(both), repeats=False))

        return take

    def _split_into(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**settings, "new_value": self._into.currentData()}

    # Seeds

    def scribble(self, outside: bool = False) -> None:
        """Go to the layer of scribbles, with the brush in hand; make it if there is none."""
        if self._layer is None or self._edits is None:
            return
        self.pointer.disarm()
        if self._seeds_layer is None:
            data = np.zeros(self.options.geometry_of_layer.shape, np.uint8)
            table = self.options.table
            not_it = Label(self._outside(), "none of the labels", "#ffffff")
            label_map = LabelMap(data, self.options.geometry_of_layer, LabelTable((*table, not_it)))
            origin = origin_or_none(self._layer)
            self._seeds_layer = helping_layer(label_map, SEEDS, origin.case_id if origin else "")
            self._seeds_layer.brush_size = 3
            self._viewer.add_layer(self._seeds_layer)
        self._seeds_layer.selected_label = self._outside() if outside else self.options.label
        self._viewer.layers.selection.active = self._seeds_layer
        self._seeds_layer.mode = "paint"
        self.words.setText(_HINTS["seed outside" if outside else "seed label"])

    def _outside(self) -> int:
        """The number that stands for "none of the labels" among the scribbles."""
        used = self.options.table.values
        return next(value for value in range(255, 0, -1) if value not in used)

    def _seed_label(self, value: int) -> None:
        if self._seeds_layer is not None and self._seeds_layer.selected_label != self._outside():
            self._seeds_layer.selected_label = value
        self._list_others()

    def _seed_settings(self) -> Mapping[str, Any]:
        if self._seeds_layer is None:
            raise Seg3dError("First scribble on the label and outside of it, with “Label” and “Not it”.")
        chosen = [action.text() for action in self._seed_images.menu().actions() if action.isChecked()]
        images = [image for name, image in self.options.images().items() if name in chosen]
        seeds = stored(np.array(self._seeds_layer.data, order="K"), self.options.geometry_of_layer)
        return {"seeds": seeds, "images": images, "background": self._outside()}

    def _list_seed_images(self) -> None:
        menu = self._seed_images.menu()
        names = list(self.options.images())
        if [action.text() for action in menu.actions()] != names:
            menu.clear()
            for name in names:
                action = menu.addAction(name)
                action.setCheckable(True)
                action.setChecked(True)
                action.triggered.connect(lambda _: self._name_seed_images())
        self._name_seed_images()

    def _name_seed_images(self) -> None:
        actions = self._seed_images.menu().actions()
        chosen = [action.text() for action in actions if action.isChecked()]
        self._seed_images.setText(f"{len(chosen)}/{len(actions)} ▾")
        self._seed_images.setToolTip(f"Images whose edges stop the growth: {', '.join(chosen) or 'none'}")
        self._settings_changed()

    def clear_seeds(self) -> None:
        """Take the layer of scribbles away and go back to the labels."""
        layer, self._seeds_layer = self._seeds_layer, None
        remove_layer(self._viewer, layer)
        if self._layer in self._viewer.layers:
            self._viewer.layers.selection.active = self._layer


def _rule_of(section: ToolsSection) -> Callable[[], Where | None]:
    """Return what asks a section for its rule for as long as there is one."""
    this = weakref.ref(section)

    def rule() -> Where | None:
        section = this()
        # Qt may have deleted the page that the labels were chosen on.
        with contextlib.suppress(RuntimeError):
            return None if section is None else section.rule()
        return None

    return rule


def _timer(parent: QWidget, milliseconds: int, action: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(action)
    return timer


#: What is said when a tool waits for the mouse.
_HINTS = {
    "ball": "Drag to paint, with Shift to erase the active label. Press the button again to stop.",
    "threshold": "Drag to paint what lies in the range. Press the button again to stop.",
    "lasso": "Draw around what shall have the active label.",
    "keep clicked": "Click the part to keep.",
    "remove clicked": "Click a part to remove.",
    "relabel clicked": "Click a part to relabel.",
    "copy": "Click where the other layer has the part to copy.",
    "plane": "Draw a line across the active label.",
    "scribbles": "Scribble on the part that stays.",
    "seed label": "Paint on some slices where the active label is. Then “Not it”, then “Grow”.",
    "seed outside": "Paint on some slices where none of the labels is. Then “Grow”.",
}
