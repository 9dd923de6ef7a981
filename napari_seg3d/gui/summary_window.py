"""The layers of a planned network in a window of its own: output shapes, parameters, and what they add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ..events import Event, Failed, Finished
from .widgets import listen, quiet_label
from .work import Job

if TYPE_CHECKING:
    from ..model.plan import Plan
    from ..model.summary import LayerRow, ModelSummary
    from .workspace import Workspace

_HEADS = ("Layer", "Kind", "Output", "Parameters")
_TIPS = (
    "Place in the network, as in the names of the weights",
    "Class of the module",
    "Batch × feature maps × X × Y × Z; inside a transformer batch × tokens × width",
    "Numbers that it and everything inside it hold; empty where a layer is used again",
)
#: Levels that are unfolded at first.
_UNFOLDED = 1


class SummaryButton(QWidget):
    """A button that opens the layers of the proposed plan's network.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workspace = workspace
        self._plan: Plan | None = None
        self._job: Job | None = None
        self.window_shown: SummaryWindow | None = None
        self.button = QPushButton("Layers of the network…")
        self.button.setToolTip("List every layer with its output's shape, its parameters, and the memory of the data")
        self.button.clicked.connect(lambda _=False: self.show_layers())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.job_ended, self._job_ended)
        self.propose(None)

    def propose(self, plan: Plan | None) -> None:
        """Take the plan whose network is to be shown; without one the button cannot be pressed."""
        self._plan = plan
        self.button.setEnabled(plan is not None and self._job is None)

    def show_layers(self) -> None:
        """Open the window; the network is walked through in the child process, which has torch loaded."""
        plan = self._plan
        if plan is None or self._job is not None:
            return
        function = "napari_seg3d.gui.planning:list_layers"
        self._job = Job("Listing the network's layers", function, {"plan": plan}, "process", "layers", quick=True)
        self._workspace.start(self._job)
        self.propose(self._plan)

    def _take_event(self, job: Job, event: Event) -> None:
        if job is self._job and isinstance(event, Finished):
            if self.window_shown is None:
                self.window_shown = SummaryWindow(self)
            self.window_shown.show_summary(event.result)
            self.window_shown.show()
            self.window_shown.raise_()
        elif job is self._job and isinstance(event, Failed):
            self.button.setToolTip(event.message)

    def _job_ended(self, job: Job, _how: str) -> None:
        if job is self._job:
            self._job = None
            self.propose(self._plan)


class SummaryWindow(QDialog):
    """Layers as a tree, sums below."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.resize(760, 620)
        self._text = ""
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(_HEADS)
        self.tree.setUniformRowHeights(True)
        for column, tip in enumerate(_TIPS):
            self.tree.headerItem().setToolTip(column, tip)
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2, 3):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.sums = quiet_label()
        self.sums.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.copy_button = QPushButton("Copy as text")
        self.copy_button.setAutoDefault(False)
        self.copy_button.setToolTip("Copy the whole table, for a paper or a report")
        self.copy_button.clicked.connect(lambda _=False: QGuiApplication.clipboard().setText(self._text))
        below = QHBoxLayout()
        below.addWidget(self.sums, 1)
        below.addWidget(self.copy_button, 0, Qt.AlignmentFlag.AlignBottom)
        layout = QVBoxLayout(self)
        layout.addWidget(self.tree, 1)
        layout.addLayout(below)

    def show_summary(self, summary: ModelSummary) -> None:
        """Show the layers of a network."""
        self.setWindowTitle(f"Layers of {summary.network}")
        self._text = summary.as_text()
        self.tree.clear()
        above: list[QTreeWidgetItem] = []
        for row in summary.rows:
            item = _item(row, summary.network)
            del above[row.depth :]
            if above:
                above[-1].addChild(item)
            else:
                self.tree.addTopLevelItem(item)
            above.append(item)
        self.tree.expandToDepth(_UNFOLDED)
        self.sums.setText("\n".join(summary.totals()))


def _item(row: LayerRow, network: str) -> QTreeWidgetItem:
    parameters = f"{row.parameters:,}" if row.parameters else ""
    item = QTreeWidgetItem([row.name or network, row.kind, " × ".join(map(str, row.output_shape)), parameters])
    item.setTextAlignment(3, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
    return item
