"""The review list on the Review page: the open case's state, the next case, marks on slices, and what it has cost."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QPushButton, QSizePolicy, QWidget

from ..correction.queue import State
from ..errors import Seg3dError
from .keys import bind_keys, with_key
from .layers import PLANES, SCREEN, origin_or_none
from .saving import user
from .session import session_for
from .widgets import Section, listen, quiet_label

if TYPE_CHECKING:
    from pathlib import Path

    from napari import Viewer

    from .work import Job
    from .workspace import Workspace

#: Milliseconds after which the next case is loaded ahead: the open one comes first.
AHEAD_MS = 1500


class QueueSection(Section):
    """Where the open case stands in the review list, and going on to the next one.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    layer : callable
        Returns the labels layer that is corrected, or None.
    save : callable
        Begins to save that layer as a new version; tells whether it could.
    """

    def __init__(
        self,
        workspace: Workspace,
        viewer: Viewer,
        layer: Callable[[], Labels | None],
        save: Callable[[], bool],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__("Review list", open_=True, tooltip="State of this case, and the next one", parent=parent)
        session = session_for(viewer)
        self._workspace, self._viewer, self._view = workspace, viewer, session.view
        self._queue, self._keeper = session.queue, session.keeper
        self._layer, self._save = layer, save
        self._going_on = False
        #: The case that is opened to be corrected next, and the tool that was in hand: mode, brush, label.
        self._following: str | None = None
        self._tool: tuple[str, float, int] | None = None
        self._build()
        self._ahead = QTimer(self)
        self._ahead.setSingleShot(True)
        self._ahead.setInterval(AHEAD_MS)
        self._ahead.timeout.connect(self._look_ahead)
        for signal in (workspace.case_changed, workspace.dataset_changed, self._queue.changed):
            listen(self, signal, self._show)
        listen(self, self._queue.slices_changed, self._show_slices)
        listen(self, viewer.dims.events.current_step, self._show_slices)
        listen(self, viewer.dims.events.order, self._show_slices)
        listen(self, session.view.shown, self._case_shown)
        listen(self, workspace.job_ended, self._job_ended)
        listen(self, session.saver.saved, self._after_saving)
        listen(self, session.saver.failed, self._after_failed_saving)
        bind_keys(
            viewer,
            self,
            {"save_check_next": QueueSection.save_check_next, "check_slice": QueueSection.check_slice},
        )
        self._show()

    def _build(self) -> None:
        self.state = QComboBox()
        self.state.setToolTip("How far the review of this case is; kept beside the corrections for all who review")
        for state in State:
            self.state.addItem(str(state.value).capitalize(), state)
        self.state.activated.connect(lambda _: self._set_state())
        self.comment = QLineEdit()
        self.comment.setPlaceholderText("Comment")
        self.comment.setToolTip("What others should know of this case, for example why it is flagged; Enter keeps it")
        self.comment.editingFinished.connect(self._set_comment)
        line = QHBoxLayout()
        line.addWidget(self.state)
        line.addWidget(self.comment, 1)
        self.body.addLayout(line)
        self.slice_button = QPushButton("Slice checked")
        self.slice_button.setCheckable(True)
        self.slice_button.setToolTip(
            with_key(
                "Mark the shown slice as checked: with marks, training learns from marked slices only", "check_slice"
            )
        )
        self.slice_button.clicked.connect(lambda _=False: self.check_slice())
        self._slices = quiet_label()
        self._slices.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._slices.setToolTip("Slices of the shown plane that are marked; saved with the next correction")
        line = QHBoxLayout()
        line.addWidget(self.slice_button)
        line.addWidget(self._slices, 1)
        self.body.addLayout(line)
        self.next_button = QPushButton("Save, check, next")
        self.next_button.setToolTip(
            with_key(
                "Save the correction and read it again, mark the case as checked, open the next one", "save_check_next"
            )
        )
        self.next_button.clicked.connect(lambda _=False: self.save_check_next())
        self.body.addWidget(self.next_button)
        self._words = quiet_label()
        self._words.setToolTip("How much of the list is done, which case comes next, and what this one has cost")
        self.body.addWidget(self._words)

    def _case_shown(self) -> None:
        self._ahead.start()
        layer, following, self._following = self._layer(), self._following, None
        if layer is None or following is None or following != self._workspace.case_id or layer.locked:
            return
        # The next case is there to be corrected, with the tool in hand.
        layer.visible = True
        self._viewer.layers.selection.active = layer
        if self._tool is not None:
            layer.mode, layer.brush_size, layer.selected_label = self._tool

    # Showing

    def _show(self) -> None:
        case_id = self._workspace.case_id
        self.setVisible(self._workspace.dataset is not None)
        for widget in (self.state, self.comment, self.next_button):
            widget.setEnabled(case_id is not None)
        review = self._queue.review(case_id or "")
        self.state.setCurrentIndex(self.state.findData(review.state))
        if not self.comment.hasFocus():
            self.comment.setText(review.comment)
        self._show_words()
        self._show_slices()
        if self.isVisible():
            self._ahead.start()

    def _show_words(self) -> None:
        words = (self._done_in_words(), *self._cost_in_words(self._workspace.case_id))
        self._words.setText("\n".join(filter(None, words)))

    def _job_ended(self, job: Job, _how: str) -> None:
        if job.kind == "prepare":
            self._show_words()
        elif job.kind == "predict" and self.isVisible():
            # The next case may have been predicted, or there is time for it now.
            self._ahead.start()

    def _done_in_words(self) -> str:
        counts = self._queue.counts()
        if not counts:
            return ""
        done = f"{counts[State.CHECKED]} of {sum(counts.values())} checked"
        if counts[State.FLAGGED]:
            done += f", {counts[State.FLAGGED]} flagged"
        following = self._queue.next_after(self._workspace.case_id)
        if following is None:
            return f"{done}."
        return f"{done}. Next: {following}{' (loaded)' if self._workspace.is_prepared(following) else ''}."

    def _cost_in_words(self, case_id: str | None) -> list[str]:
        efforts = self._queue.efforts
        parts: list[str] = []
        if not efforts:
            return parts
        one = efforts.get(case_id or "")
        if one is not None:
            each = f", {_pace(one.minutes_per_ml)}" if isfinite(one.minutes_per_ml) else ""
            parts.append(f"This case: {one.minutes:.1f} min, {one.changed_ml:.2f} ml changed{each}.")
        minutes = sum(effort.minutes for effort in efforts.values())
        changed = sum(effort.changed_ml for effort in efforts.values() if isfinite(effort.changed_ml))
        each = f", {_pace(minutes / changed)}" if changed > 0 else ""
        parts.append(f"On average {minutes / len(efforts):.1f} min per case{each}.")
        return parts

    # State

    def _set_state(self) -> None:
        self._keep(self.state.currentData(), None)

    def _set_comment(self) -> None:
        case_id = self._workspace.case_id
        if case_id is not None and self.comment.text() != self._queue.review(case_id).comment:
            self._keep(self._queue.review(case_id).state, self.comment.text())

    def _keep(self, state: State, comment: str | None) -> None:
        case_id = self._workspace.case_id
        if case_id is None:
            return
        try:
            self._queue.set(case_id, state, comment=comment, author=user())
        except Seg3dError as error:
            self._workspace.say("error", str(error))

    # Slices

    def _shown_slice(self) -> tuple[int, int, str] | None:
        """Return axis and number of the shown slice in the case's own voxels, and the plane's name."""
        case, dims = self._workspace.case, self._viewer.dims
        if case is None or dims.ndim < 3 or dims.ndisplay != 2:
            return None
        shown = int(dims.order[dims.ndim - 3]) - dims.ndim + 3
        plane = next((name for name, order in PLANES.items() if order[0] == shown), "")
        turned = case.geometry.orientation_to(SCREEN)
        for axis, (screen_axis, flip) in enumerate(turned):
            if int(screen_axis) == shown:
                size = case.geometry.shape[axis]
                number = int(dims.current_step[dims.ndim - 3 + shown])
                if 0 <= number < size:
                    return axis, number if flip > 0 else size - 1 - number, plane
        return None

    def _show_slices(self) -> None:
        shown = self._shown_slice()
        self.slice_button.setEnabled(shown is not None)
        if shown is None:
            self._slices.clear()
            self.slice_button.setChecked(False)
            return
        axis, number, plane = shown
        marked = self._queue.slices(axis)
        self.slice_button.setChecked(bool(marked[number]))
        self._slices.setText(f"{int(marked.sum())} of {len(marked)} {plane} slices" if marked.any() else "none marked")

    def check_slice(self) -> None:
        """Mark the shown slice as checked, or take the mark back."""
        shown = self._shown_slice()
        if shown is None:
            return
        try:
            self._queue.toggle_slice(shown[0], shown[1])
        except Seg3dError as error:
            self._workspace.say("error", str(error))
        self._show_slices()

    # Going on

    def save_check_next(self) -> None:
        """Save the corrected layer and read it again, mark its case as checked, and open the next one."""
        case_id, layer = self._workspace.case_id, self._layer()
        if case_id is None or self._going_on:
            return
        unsaved = self._view.unsaved_layers()
        others = ", ".join(other.name for other in unsaved if other is not layer)
        if others:
            self._workspace.say("warning", f"Edits of {others} are not saved either. Save or undo them first.")
            return
        if layer is None or not self._needs_saving(layer, layer in unsaved):
            self._keep(State.CHECKED, None)
            self._go_on(case_id)
            return
        self._queue.checking = case_id
        self._going_on = self._save()
        if not self._going_on:
            self._queue.checking = None

    def _needs_saving(self, layer: Labels, edited: bool) -> bool:
        origin = origin_or_none(layer)
        if origin is not None and origin.role == "truth":
            return False
        path = None if origin is None else origin.path
        # What was right as predicted becomes a version too: it is what training learns from.
        return edited or path is None or path.parent.parent != self._workspace.corrections_folder

    def _after_saving(self, layer: Labels, path: Path) -> None:
        if not self._going_on or layer != self._layer():
            return
        self._going_on = False
        case_id = path.parent.name
        if self._view.unsaved_layers():
            self._workspace.say("warning", f"{layer.name} was edited while it was being saved; the case stays open.")
            return
        self._go_on(case_id, f"Saved {case_id}/{path.name}, read again, and checked.")

    def _after_failed_saving(self, *_: object) -> None:
        self._going_on = False
        self._queue.checking = None

    def _go_on(self, case_id: str, done: str = "") -> None:
        following = self._queue.next_after(case_id)
        if following is None:
            self._workspace.say("info", f"{done} No other case is left to do.".strip())
            return
        layer = self._layer()
        if layer is not None and not layer.locked:
            self._tool = str(layer.mode), layer.brush_size, layer.selected_label
        self._following = following
        self._workspace.open_case(following)
        self._workspace.say("info", f"{done} {self._done_in_words()}".strip())

    def _look_ahead(self) -> None:
        """Load the next case ahead, and predict it if a model is chosen and nothing else is running."""
        following = self._queue.next_after(self._workspace.case_id)
        if following is None or self._workspace.case is None or not self.isVisible():
            return
        self._workspace.prepare_case(following)
        if following in self._workspace.predictions or self._workspace.current_job is not None:
            return
        # Imported late: the page of predictions is only asked if it is there.
        from .predict_panel import PredictPanel

        for page in self.window().findChildren(PredictPanel):
            if page.predict_ahead(following):
                return


def _pace(minutes_per_ml: float) -> str:
    """Say a pace without a string of noughts: a large change that a tool made took a second for each ml."""
    return f"{minutes_per_ml:.1f} min per ml" if minutes_per_ml >= 1 else f"{60 * minutes_per_ml:.2g} s per ml"
