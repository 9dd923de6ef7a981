"""The Review page: how good a prediction is, where it is wrong, and saving it corrected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from ..cases.case import Case
from ..cases.labels import regions_for
from ..comparison.baselines import BASELINE_DEFINITION, Baseline
from ..comparison.gallery import Material
from ..comparison.live import LiveVolumes
from ..correction.raters import consensus
from ..errors import CorrectionError, LabelError, Seg3dError
from ..events import Event, Finished
from .case_view import bring_into_view
from .difference_section import DifferenceSection
from .edits import Edit, LayerEdits
from .history_section import HistorySection
from .keys import bind_keys
from .layers import (
    KEY,
    Origin,
    adopt,
    label_map_of,
    origin_of,
    origin_or_none,
    prediction_layer,
    snapshot,
)
from .learn_section import LearnSection
from .looks_section import LooksSection
from .queue_section import QueueSection
from .raters import RatersRow, RatersWindow
from .restore_strip import RestoreStrip
from .scores_table import ScoresTable, volume_text
from .session import session_for
from .steps_section import StepsSection
from .tasks import Comparison
from .tools_section import ToolsSection
from .versions_section import VersionsSection
from .widgets import EmptyState, MainButton, Panel, listen, quiet_label
from .window_level import WindowLevelButton
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from ..comparison.report import Scores
    from ..volumes.volume import LabelMap, Volume
    from .figures_window import FiguresWindow
    from .workspace import Workspace

#: Milliseconds without a stroke after which distances are measured; overlap is counted at once.
IDLE_MS = 1500
#: Names in `keys.PALETTE` -> the tools' buttons.
_TOOLS = {
    "keep_clicked": "keep clicked",
    "remove_smaller": "smaller",
    "grow": "grow",
    "shrink": "shrink",
    "scribble_label": "seed label",
    "scribble_outside": "seed outside",
    "clear_scribbles": "seed clear",
    "split_by_line": "plane",
    "split_by_scribbles": "scribbles",
    "relabel": "relabel",
    "relabel_clicked": "relabel clicked",
    "add_label": "union",
    "keep_both": "intersection",
    "take_away": "difference",
    "copy_clicked": "copy",
}


class ReviewPanel(Panel):
    """The Review page of a viewer."""

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(workspace, viewer, parent)
        session = session_for(viewer)
        self._view, self._saver = session.view, session.saver
        self._job: Job | None = None
        self._comparison: Comparison | None = None
        self._truth_map: LabelMap | None = None
        #: Where the truth that is compared comes from.
        self._truth_origin: Origin | None = None
        self._search: Job | None = None
        #: What a threshold reaches, and for which case and truth that was found.
        self._threshold: Baseline | None = None
        self._threshold_of: tuple[str | None, Labels | None] = (None, None)
        self._figures: FiguresWindow | None = None
        #: The edits of the predicted layer, if it can be edited; what is compared follows each of them.
        self._edits: LayerEdits | None = None
        #: The job that measures distances, and the number of edits that it knows.
        self._measuring: Job | None = None
        self._edit_count = self._measured_count = 0
        #: What is known where there is nothing to compare with.
        self._volumes: LiveVolumes | None = None
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(IDLE_MS)
        self._idle.timeout.connect(self._measure)
        self._build()
        self.set_empty_state(
            EmptyState(
                "Nothing to review yet",
                "Open a case on the Data page and predict it, or add a labels layer to the viewer. "
                "Two labels layers on one grid can be compared.",
            )
        )
        listen(self, viewer.layers.events.inserted, self._list_layers)
        listen(self, viewer.layers.events.removed, self._list_layers)
        listen(self, viewer.dims.events.order, self.steps.axis_changed)
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.unsaved_changed, self._show_unsaved)
        listen(self, self._view.edited, self._after_edit)
        listen(self, self._view.renamed, self._list_layers)
        listen(self, self._view.shown, self._after_case)
        listen(self, self._saver.saved, self._after_saving)
        listen(self, self._saver.failed, self._after_failed_saving)
        self._bind_keys()
        self._list_layers()

    def _bind_keys(self) -> None:
        bind_keys(
            self.viewer,
            self,
            {
                "difference": lambda page: page._comparison is not None and page.difference.switch.toggle(),
                "contours": lambda page: page.looks.contours.toggle(),
                "flash": lambda page: page.looks.flash.toggle(),
                "fainter": lambda page: page.looks.change_opacity(-1),
                "stronger": lambda page: page.looks.change_opacity(1),
                "next_image": lambda page: page.looks.next_image(),
                "next_label": lambda page: page.looks.change_label(1),
                "previous_label": lambda page: page.looks.change_label(-1),
                "next_place": lambda page: page.steps.step(1),
                "previous_place": lambda page: page.steps.step(-1),
                "accept_place": lambda page: page.steps.accept_place(),
                "keep_place": lambda page: page.steps.keep_place(),
                "check_place": lambda page: page.steps.check_place(),
                "uncheck_place": lambda page: page.steps.uncheck_place(),
            },
        )

    def do(self, action: str) -> None:
        """Do one of `keys.PALETTE`; nothing where there is nothing to do it on."""
        actions: dict[str, Callable[[], object]] = {
            **{name: partial(self.tools.press, button) for name, button in _TOOLS.items()},
            "edit_copy": self.edit_copy,
            "save_correction": self.save,
            "save_as": self.save_as,
            "figures": self.show_figures,
            "consensus": self.begin_consensus,
            "raters_table": self.show_raters,
        }
        actions[action]()

    # What the page is made of

    def _build(self) -> None:
        self.body.addWidget(RestoreStrip(session_for(self.viewer).keeper, self.workspace))
        self._predicted = self._layer_choice("The labels to judge and to correct")
        self._truth = self._layer_choice("The labels to compare with")
        copy = QPushButton("Edit a copy")
        copy.setToolTip("Make a layer with the same labels that can be painted on; the truth itself stays locked")
        copy.clicked.connect(lambda _=False: self.edit_copy())
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        self._titles = (QLabel("Prediction"), QLabel("Truth"))
        grid.addWidget(self._titles[0], 0, 0)
        grid.addWidget(self._predicted, 0, 1, 1, 2)
        grid.addWidget(self._titles[1], 1, 0)
        grid.addWidget(self._truth, 1, 1)
        grid.addWidget(copy, 1, 2)
        self.body.addLayout(grid)
        self.looks = LooksSection(self.workspace, self.viewer, self._view.show_keys)
        self.body.addWidget(self.looks)
        self.scores = ScoresTable()
        self.body.addWidget(self.scores)
        self.raters = RatersRow()
        self.raters.consensus_wanted.connect(self.begin_consensus)
        self.raters.table_wanted.connect(self.show_raters)
        self.body.addWidget(self.raters)
        self._changes = quiet_label()
        self._changes.setToolTip("How the volumes of what is corrected have changed since the layer was loaded")
        self._changes.setVisible(False)
        self.body.addWidget(self._changes)
        self._beside = quiet_label()
        self.body.addWidget(self._beside)
        self._note = quiet_label()
        self.body.addWidget(self._note)
        self._build_difference()
        self.tools = ToolsSection(self.workspace, self.viewer, self._predicted)
        self.looks.add_button(WindowLevelButton(self.viewer, self.tools.pointer))
        self.history = HistorySection(self._view, self._predicted)
        self.body.addWidget(self.tools)
        self.body.addWidget(self.history)
        self.body.addStretch(1)
        self._unsaved = quiet_label()
        self.body.addWidget(self._unsaved)
        self._save = MainButton(
            "Save correction",
            "Write the predicted labels as a new version with the source's geometry, and read it again",
        )
        self._save.clicked.connect(lambda _=False: self.save())
        save_as = QPushButton("Save as…")
        save_as.setToolTip("Write the predicted labels to a file of your choice, never over an original")
        save_as.clicked.connect(lambda _=False: self.save_as())
        line = QHBoxLayout()
        line.addWidget(self._save, 1)
        line.addWidget(save_as)
        self.body.addLayout(line)
        self.queue = QueueSection(self.workspace, self.viewer, lambda: self.predicted_layer, self.save)
        self.body.addWidget(self.queue)
        self.learning = LearnSection(self.workspace, self.viewer)
        self.body.addWidget(self.learning)
        self.versions = VersionsSection(self.workspace, self.viewer, self.compare_with)
        self.body.addWidget(self.versions)
        self._show_unsaved()

    def _layer_choice(self, tooltip: str) -> QComboBox:
        choice = QComboBox()
        choice.setToolTip(tooltip)
        choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        choice.activated.connect(lambda _: self._compare(surface=True))
        return choice

    def _build_difference(self) -> None:
        self.difference = DifferenceSection(self.viewer)
        self.steps = StepsSection(self.workspace, self.viewer)
        self.steps.said.connect(self.messages.show_message)
        self.steps.went.connect(self._bring_voxel_into_view)
        self._figures_button = QPushButton("Figures…")
        self._figures_button.setToolTip(
            "Slices, agreement, classes, a blind test and the confusion of classes, in a window of their own"
        )
        self._figures_button.clicked.connect(lambda _=False: self.show_figures())
        self.difference.add_button(self._figures_button)
        self.body.addWidget(self.difference)
        self.body.addWidget(self.steps)

    # Which layers

    def _list_layers(self) -> None:
        all_labels = [layer for layer in self.viewer.layers if isinstance(layer, Labels)]
        layers = [layer for layer in all_labels if _role(layer) not in ("difference", "patch")]
        before = (self.predicted_layer, self.truth_layer)
        predictions = [layer for layer in layers if _role(layer) != "truth"]
        truths = [layer for layer in layers if _role(layer) == "truth"]
        newest = predictions[-1] if predictions else None
        self._fill(self._predicted, layers, before[0] if before[0] in predictions else newest)
        self._fill(self._truth, layers, before[1] or (truths[0] if truths else None))
        self.show_empty(not layers)
        if (self.predicted_layer, self.truth_layer) != before:
            self._compare(surface=True)
        elif self._comparison is None:
            self.difference.show_uncertainty(self.steps.uncertainty_layer())
            self.steps.look_again()

    @staticmethod
    def _fill(choice: QComboBox, layers: list[Labels], chosen: Labels | None) -> None:
        choice.clear()
        choice.addItem("–", None)
        for layer in reversed(layers):
            choice.addItem(layer.name, layer)
        if chosen in layers:
            choice.setCurrentIndex(len(layers) - layers.index(chosen))

    @property
    def predicted_layer(self) -> Labels | None:
        """The layer that is judged, corrected and saved."""
        return self._predicted.currentData()

    @property
    def truth_layer(self) -> Labels | None:
        """The layer that it is compared with."""
        return self._truth.currentData()

    def compare_with(self, layer: Labels) -> None:
        """Compare what is corrected with another labels layer, for example an earlier version."""
        if layer is self.predicted_layer:
            return
        self._list_layers()
        layers = [self._truth.itemData(index) for index in range(self._truth.count())]
        self._truth.setCurrentIndex(layers.index(layer) if layer in layers else 0)
        self._compare(surface=True)

    def edit_copy(self) -> None:
        """Add a layer with the labels of the truth that can be painted on, and choose it as the one to correct."""
        truth = self.truth_layer
        if truth is None:
            return
        origin = origin_or_none(truth)
        try:
            layer = prediction_layer(
                label_map_of(truth), name=f"{truth.name} (edited)", case_id="" if origin is None else origin.case_id
            )
        except Seg3dError as error:
            self.messages.show_message("error", str(error))
            return
        self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = layer
        self._choose(layer)

    def _choose(self, layer: Labels) -> None:
        """Choose a new layer as the one to correct."""
        listed = [self._predicted.itemData(i) for i in range(self._predicted.count() - 1, 0, -1)]
        self._fill(self._predicted, listed, layer)
        self._compare(surface=True)

    # Two raters

    def begin_consensus(self) -> None:
        """Add a layer in which what two raters agree on stays, and step through what they do not agree on."""
        mine, other, raters = self.predicted_layer, self.truth_layer, self.steps.raters
        if mine is None or other is None or raters is None:
            return
        try:
            begun, undecided = consensus([snapshot(mine), snapshot(other)])
            origins = [origin_of(one) for one in (mine, other)]
            name = f"consensus of {raters[0]} and {raters[1]}"
            layer = prediction_layer(begun, name=name, case_id=origins[0].case_id)
        except Seg3dError as error:
            self.messages.show_message("error", str(error))
            return
        parents = tuple(origin.path or rater for origin, rater in zip(origins, raters, strict=True))
        layer.metadata[KEY] = replace(origin_of(layer), raters=raters, parents=parents)
        self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = layer
        self._choose(layer)
        ml = np.count_nonzero(undecided) * begun.geometry.voxel_volume_ml
        self.messages.show_message(
            "info",
            f"{volume_text(ml)} ml are left to decide: step through the places, take {raters[1]}, keep {raters[0]}, or "
            "paint. Save it as a new version when you have done.",
        )

    def show_raters(self) -> None:
        """Show how far raters agree on all cases, in a window."""
        if self.workspace.output is None:
            self.messages.show_message("error", "No dataset is open. Choose a dataset folder first.")
            return
        RatersWindow(self.workspace, self).show()

    def _after_case(self) -> None:
        """Compare anew if the layer of the truth has gone on with that of another case."""
        truth = self.truth_layer
        if self._truth_map is not None and truth is not None and origin_or_none(truth) is not self._truth_origin:
            self._compare(surface=True)

    def _adopt(self, layer: Labels) -> None:
        """Let a layer of the user's stand on the grid of the shown images."""
        if origin_or_none(layer) is None:
            images = [other for other in self.viewer.layers if isinstance(other, Image) and _role(other) == "image"]
            if images:
                adopt(layer, images[0])
                self._view.watch(layer)

    # Comparing

    def _compare(self, *, surface: bool) -> None:
        predicted, truth = self.predicted_layer, self.truth_layer
        self._save.setEnabled(predicted is not None and _role(predicted) != "truth")
        self.looks.set_layers(predicted, truth)
        self._drop_jobs()
        if predicted is None or truth is None or predicted is truth:
            self._follow(predicted)
            self._count_volumes(predicted)
            self._show(None)
            self._note.setText("Choose two labels layers to compare." if truth is None or predicted is None else "")
            self._note.setVisible(bool(self._note.text()))
            return
        try:
            for layer in (predicted, truth):
                self._adopt(layer)
            self._follow(predicted)
            predicted_map, truth_map = snapshot(predicted), snapshot(truth)
            loaded = self._view.loaded_map(predicted)
        except Seg3dError as error:
            self._volumes = None
            self._show(None)
            self._note.setText(str(error))
            self._note.setVisible(True)
            return
        self._truth_map = truth_map
        self._truth_origin = origin_or_none(truth)
        if self._threshold_of != (self.workspace.case_id, truth):
            self._threshold = None
        kwargs = {
            "predicted": predicted_map,
            "truth": truth_map,
            "case": self.workspace.case_id or truth.name,
            "surface": surface,
            "loaded": loaded,
        }
        self._job = Job("Comparing", "napari_seg3d.gui.tasks:compare_maps", kwargs, "thread", "compare", quick=True)
        self.workspace.start(self._job)

    def _drop_jobs(self) -> None:
        for job in (self._job, self._measuring):
            if job is not None:
                self.workspace.quick.drop(job)
        self._job = self._measuring = None
        self._drop_search()

    def _take_event(self, job: Job, event: Event) -> None:
        self.steps.take_event(job, event)
        if not isinstance(event, Finished):
            return
        if job is self._job:
            self._job = None
            self._show(self._caught_up(event.result))
            if job.kwargs["surface"]:
                self._search_threshold()
        elif job is self._measuring:
            self._measuring = None
            if self._comparison is not None and self._measured_count == self._edit_count:
                self._comparison = replace(self._comparison, scores=event.result)
                self._show_scores(event.result)
                self._search_threshold()
        elif job is self._search:
            self._search = None
            _, self._threshold = event.result
            if self._comparison is not None:
                self._show_baselines(self._comparison.scores)

    def _after_edit(self, layer: Layer) -> None:
        """Take notice that the user has paused after strokes."""
        if layer is self.truth_layer:
            self._threshold = None
        follows = self._comparison is not None or self._volumes is not None
        if self._edits is not None and layer is self._edits.layer and follows:
            # Every stroke is in the scores already.
            self.steps.look_again()
        elif layer in (self.predicted_layer, self.truth_layer):
            self._compare(surface=False)
            self._idle.start()
        if layer is self.predicted_layer and self._comparison is None:
            self.steps.look_again()

    # Following every stroke

    def _follow(self, layer: Labels | None) -> None:
        """Listen to the edits of a layer, if it is one that is corrected, and no more to those of another."""
        try:
            edits = None if layer is None else self._view.edits_of(layer)
        except LabelError:
            edits = None
        if edits is self._edits:
            return
        if self._edits is not None:
            self._edits.made.disconnect(self._take_edit, missing_ok=True)
        self._edits = edits
        if edits is not None:
            listen(self, edits.made, self._take_edit)

    def _caught_up(self, comparison: Comparison) -> Comparison:
        """Return the comparison with the strokes that were made while it was worked out."""
        edit = None if self._edits is None else comparison.live.follow(self._edits.labels)
        if edit is None:
            return comparison
        self._idle.start()
        return comparison.after({*np.unique(edit.old).tolist(), *np.unique(edit.new).tolist()})

    def _take_edit(self, edit: Edit) -> None:
        self._edit_count += 1
        comparison = self._comparison
        if self._volumes is not None:
            self._volumes.changed(edit.old, edit.change.values)
            self.scores.show_volumes(self._volumes)
            return
        if comparison is None or self._job is not None:
            # The comparison that comes catches up.
            return
        try:
            comparison.live.changed(edit.change.indices, edit.old, edit.change.values)
        except CorrectionError:
            self._compare(surface=False)
        else:
            touched = {*np.unique(edit.old).tolist(), *np.unique(edit.change.values).tolist()}
            self._comparison = comparison.after(touched)
            self._show_comparison(self._comparison)
            self.steps.follow(self._comparison)
        self._idle.start()

    def _measure(self) -> None:
        """Measure distances, now that nobody paints."""
        predicted, comparison = self.predicted_layer, self._comparison
        if self._edits is None or comparison is None or predicted is None or self._truth_map is None:
            self._compare(surface=True)
            return
        self._drop_search()
        if self._measuring is not None:
            self.workspace.quick.drop(self._measuring)
        self._measured_count = self._edit_count
        kwargs = {"predicted": snapshot(predicted), "truth": self._truth_map, "case": comparison.scores.case}
        self._measuring = Job("Measuring", "napari_seg3d.gui.tasks:measure", kwargs, "thread", "measure", quick=True)
        self.workspace.start(self._measuring)

    # What is reached without learning

    def _search_threshold(self) -> None:
        """Look for the best threshold when nobody paints, once for each case and truth."""
        case, truth_map = self.workspace.case, self._truth_map
        if self._threshold is not None or case is None or truth_map is None or not truth_map.data.any():
            return
        if not case.geometry.same_grid(truth_map.geometry) or self.steps.raters is not None:
            return
        self._threshold_of = (self.workspace.case_id, self.truth_layer)
        kwargs = {
            "case": Case(case.id, case.modalities, truth_map),
            "regions": regions_for(truth_map.table) or (),
        }
        task = "napari_seg3d.gui.figure_tasks:find_baselines"
        self._search = Job("Looking for the best threshold", task, kwargs, "thread", "baselines", quick=True)
        self.workspace.start(self._search)

    def _drop_search(self) -> None:
        if self._search is not None:
            self.workspace.quick.drop(self._search)
            self._search = None

    def _show_baselines(self, scores: Scores) -> None:
        if self._threshold is not None:
            scores = scores.with_threshold(self._threshold)
        # Without a truth nothing can be said of what is reached without learning.
        found = scores.baselines if scores.by_label and self.steps.raters is None else ()
        self._beside.setText(" · ".join(f"{each.name} {each.mean_dice:.2f}" for each in found))
        how = [f"{name}: {words}" for name, words in found[-1].how.items()] if len(found) > 1 else []
        self._beside.setToolTip("\n".join([BASELINE_DEFINITION, *how]))
        self._beside.setVisible(bool(found))

    # Figures

    def show_figures(self) -> None:
        """Open the window with the figures of what is compared."""
        if self._figures is None:
            # Only now: it is rarely wanted.
            from .figures_window import FiguresWindow

            self._figures = FiguresWindow(self.workspace, self.material, self)
        self._figures.show()
        self._figures.raise_()

    def material(self) -> Material | None:
        """Return copies of what is compared, with the images of the open case, for figures.

        Raises
        ------
        LabelError, GeometryError
            If a layer cannot be turned into a label map.
        """
        predicted, truth = self.predicted_layer, self.truth_layer
        maps = [None if layer is None else snapshot(layer) for layer in (predicted, truth)]
        grid = next((label_map.geometry for label_map in maps if label_map is not None), None)
        case = self.workspace.case
        images: dict[str, Volume] = {}
        if case is not None and (grid is None or case.geometry.same_grid(grid)):
            images = {name: replace(volume, name=name) for name, volume in case.modalities.items()}
        if grid is None and not images:
            return None
        table = next((label_map.table for label_map in (maps[1], maps[0]) if label_map is not None), None)
        regions = (regions_for(table) if table is not None else None) or ()
        name = self.workspace.case_id or (truth.name if truth is not None else "")
        return Material(name, maps[0], maps[1], images, regions)

    # Showing

    def _count_volumes(self, layer: Labels | None) -> None:
        """Count what a layer holds that there is nothing to compare with."""
        self._volumes = None
        # A layer that is not ours has no millilitres.
        with contextlib.suppress(Seg3dError):
            if layer is not None:
                self._volumes = LiveVolumes(snapshot(layer), self._view.loaded_map(layer))

    def _show(self, comparison: Comparison | None) -> None:
        self._comparison = comparison
        if comparison is not None:
            self._volumes = None
        self.scores.setVisible(comparison is not None or self._volumes is not None)
        truth_map = None if comparison is None else self._truth_map
        self.steps.show_layers(self.predicted_layer, self._edits, comparison, truth_map, self.truth_layer)
        self._name_what_is_compared()
        if self._volumes is not None:
            self.scores.show_volumes(self._volumes)
        if comparison is not None:
            self._show_comparison(comparison)
            return
        for widget in (self._beside, self._changes):
            widget.setVisible(False)
        self.difference.show_uncertainty(self.steps.uncertainty_layer())
        if self._figures is not None:
            self._figures.refresh()

    def _name_what_is_compared(self) -> None:
        """Call two raters by their names: neither is the truth."""
        raters = self._raters
        origin = None if self.predicted_layer is None else origin_or_none(self.predicted_layer)
        self.raters.show_pair(raters, is_consensus=origin is not None and bool(origin.raters))
        titles = ("Prediction", "Truth") if raters is None else ("Corrected", "Against")
        for title, text in zip(self._titles, titles, strict=True):
            title.setText(text)
        self.scores.name_columns(raters, volumes_only=self._volumes is not None)

    @property
    def _raters(self) -> tuple[str, str] | None:
        """The two whose maps are compared; None where one of them is the truth."""
        return self.steps.raters if self._comparison is not None else None

    def _show_comparison(self, comparison: Comparison) -> None:
        self._show_scores(comparison.scores)
        live = comparison.live
        if self._raters is not None:
            self.raters.show_kappa(live.kappa)
        now = live.scores()
        labels = now[: len(now) - len(comparison.scores.by_region)]
        changed = [score for score in labels if abs(score.change_ml) > 1e-9]
        words = ", ".join(f"{score.name} {volume_text(score.change_ml, signed=True)} ml" for score in changed)
        self._changes.setText(f"Since it was loaded: {words}" if words else "")
        self._changes.setVisible(bool(words))
        self.difference.show_comparison(comparison, self._raters, self.workspace.case_id or "")
        if self._figures is not None:
            self._figures.refresh()

    def _show_scores(self, scores: Scores) -> None:
        self.scores.show_scores(scores)
        self._show_baselines(scores)
        absent = [score.name for score in (*scores.by_label, *scores.by_region) if score.absent]
        notes = [*scores.notes]
        if absent:
            notes.append(f"Absent in both, Dice 1: {', '.join(absent)}.")
        self._note.setText(" ".join(notes))
        self._note.setVisible(bool(notes))

    def show_difference(self, shown: bool) -> None:
        """Show where prediction and truth disagree as a layer, or take that layer away."""
        self.difference.switch.setChecked(shown)

    def _bring_voxel_into_view(self, voxel: Sequence[float]) -> None:
        if self.predicted_layer is not None:
            bring_into_view(self.viewer, self.predicted_layer.data_to_world(voxel), 0.4)

    # Saving

    def save(self) -> bool:
        """Save the judged layer as a new version of its case; tell whether that was begun."""
        layer = self.predicted_layer
        if layer is None:
            return False
        try:
            self._adopt(layer)
            self._saver.save_version(layer)
        except Seg3dError as error:
            self.messages.show_message("error", str(error))
            return False
        return True

    def save_as(self) -> None:
        """Save the judged layer to a file that the user chooses; Qt's dialogue asks before it replaces one."""
        layer = self.predicted_layer
        if layer is None:
            return
        folder = self.workspace.output or Path.home()
        name = f"{self.workspace.case_id or layer.name}.nii.gz"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save labels as", str(folder / name), "NIfTI (*.nii.gz *.nii)")
        if not chosen:
            return
        path = Path(chosen if chosen.lower().endswith((".nii", ".nii.gz")) else f"{chosen}.nii.gz")
        try:
            self._adopt(layer)
            # A name that got its ending here was not asked about.
            self._saver.save_as(layer, path, overwrite=str(path) == chosen)
        except Seg3dError as error:
            self.messages.show_message("error", str(error))

    def _after_saving(self, layer: Labels, path: Path) -> None:
        origin, left = origin_or_none(layer), len(self.steps.places)
        undecided = ""
        if origin is not None and origin.raters and layer is self.predicted_layer and left:
            undecided = f" {left} place{'' if left == 1 else 's'} are left to decide."
        self.messages.show_message(
            "info",
            f"Saved {path.parent.name}/{path.name}. Read again: identical to the layer {layer.name}, voxel for voxel, "
            f"on the same grid.{undecided}",
        )

    def _after_failed_saving(self, layer: Labels, text: str, details: str) -> None:
        self.messages.show_message("error", f"{layer.name} is not saved. {text}", details)

    def _show_unsaved(self) -> None:
        names = sorted(self.workspace.unsaved)
        self._unsaved.setText(f"● Not saved: {', '.join(names)}" if names else "")
        self._unsaved.setVisible(bool(names))


def _role(layer: Layer) -> str:
    origin = origin_or_none(layer)
    return "" if origin is None else origin.role
