"""The saved versions of the open case: who, when, how long, what changed; open one, or compare with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from ..cases.corrections import Correction
from ..errors import Seg3dError
from .labels_from_file import LabelsFromFile
from .layers import origin_or_none
from .plain_table import PlainTable
from .raters import RatersWindow
from .session import session_for
from .widgets import Section, listen, quiet_label

if TYPE_CHECKING:
    from napari import Viewer

    from .workspace import Workspace

_HEADS = (
    ("Version", "Its number; the newest is on top"),
    ("Saved", "When it was saved"),
    ("By", "Who saved it"),
    ("min", "Minutes spent on it"),
    ("Voxels", "Voxels that changed against what it is based on"),
)
_ROWS = 5


class VersionsSection(Section):
    """The versions of the open case.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    compare : callable
        Compares the corrected layer with the one it is given.
    """

    def __init__(
        self, workspace: Workspace, viewer: Viewer, compare: Callable[[Labels], object], parent: QWidget | None = None
    ) -> None:
        super().__init__("Versions", tooltip="What was saved of this case; open it again or compare", parent=parent)
        self._workspace, self._viewer, self._compare = workspace, viewer, compare
        self._versions: list[Correction] = []
        self._wanted: Path | None = None
        self._files = LabelsFromFile(workspace, viewer)
        self._build()
        listen(self, workspace.case_changed, self.refresh)
        listen(self, workspace.results_changed, self.refresh)
        listen(self, viewer.layers.events.inserted, self._added)
        listen(self, session_for(viewer).saver.saved, self._saved)
        self.refresh()

    def _build(self) -> None:
        table = self.table = PlainTable(_HEADS, stretch=2, numbers=(3, 4))
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        table.itemSelectionChanged.connect(self._enable)
        table.doubleClicked.connect(lambda _: self.open())
        self.body.addWidget(table)
        self.open_button = QPushButton("Open")
        self.open_button.setToolTip("Show this version as a layer of its own, to look at or to go on with")
        self.open_button.clicked.connect(lambda _=False: self.open())
        self.compare_button = QPushButton("Compare")
        self.compare_button.setToolTip("Show this version and compare what is corrected with it")
        self.compare_button.clicked.connect(lambda _=False: self.compare())
        self.raters_button = QPushButton("Raters…")
        self.raters_button.setToolTip("How far those agree who have saved versions of the same cases, in a table")
        self.raters_button.clicked.connect(lambda _=False: RatersWindow(self._workspace, self).show())
        line = QHBoxLayout()
        line.addWidget(self.raters_button)
        line.addStretch(1)
        line.addWidget(self.open_button)
        line.addWidget(self.compare_button)
        self.body.addLayout(line)
        self._note = quiet_label()
        self.body.addWidget(self._note)

    def _saved(self, *_: object) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Look again which versions there are."""
        case_id = self._workspace.case_id
        self._versions, note = [], ""
        if case_id is not None:
            try:
                self._versions = session_for(self._viewer).queue.versions(case_id)
            except Seg3dError as error:
                note = str(error)
        self._note.setText(note)
        self._note.setVisible(bool(note))
        self.setVisible(bool(self._versions) or bool(note))
        count = len(self._versions)
        self.set_title(f"{count} saved version{'' if count == 1 else 's'}")
        table = self.table
        table.setRowCount(count)
        for row, version in enumerate(self._versions):
            for column, text in enumerate(_texts(version)):
                table.write(row, column, text, _tooltip(version))
        table.fit_height(_ROWS)
        if count:
            table.selectRow(0)
        self._enable()

    def _enable(self) -> None:
        for button in (self.open_button, self.compare_button):
            button.setEnabled(self.chosen is not None)

    @property
    def chosen(self) -> Correction | None:
        """The version that is marked in the list."""
        rows = {index.row() for index in self.table.selectedIndexes()}
        return self._versions[min(rows)] if rows and min(rows) < len(self._versions) else None

    def open(self) -> None:
        """Show the chosen version as a layer."""
        chosen, case_id = self.chosen, self._workspace.case_id
        if chosen is not None and case_id is not None:
            by = f" ({chosen.author})" if chosen.author else ""
            self._files.show(case_id, chosen.path, f"version {chosen.version}{by}")

    def compare(self) -> None:
        """Show the chosen version and compare the corrected layer with it."""
        chosen = self.chosen
        if chosen is None:
            return
        layer = next((layer for layer in self._viewer.layers if _holds(layer, chosen.path)), None)
        if isinstance(layer, Labels):
            self._compare(layer)
            return
        self._wanted = chosen.path
        self.open()

    def _added(self, event: object) -> None:
        layer = getattr(event, "value", None)
        if self._wanted is not None and isinstance(layer, Labels) and _holds(layer, self._wanted):
            self._wanted = None
            self._compare(layer)


def _holds(layer: Layer, path: Path) -> bool:
    """Whether a layer was opened from this file, and not only saved to it."""
    origin = origin_or_none(layer)
    return origin is not None and origin.path == path and origin.source is not None and Path(origin.source.path) == path


def _texts(version: Correction) -> tuple[str, ...]:
    minutes = f"{version.seconds / 60:.1f}" if version.date else "–"
    return f"v{version.version:03d}", _when(version), version.author or "–", minutes, _changed(version)


def _when(version: Correction) -> str:
    try:
        return f"{datetime.fromisoformat(version.date).astimezone():%d %b %H:%M}"
    except ValueError:
        return "–"


def _changed(version: Correction) -> str:
    voxels = version.voxels
    if voxels is None and version.changed is not None:
        # Written by an older program: a voxel that became another label is added to one and removed from the other.
        counts = tuple(version.changed.values())
        voxels = max(sum(plus for plus, _ in counts), sum(minus for _, minus in counts))
    return "–" if voxels is None else f"{voxels:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _tooltip(version: Correction) -> str:
    lines = [version.path.name, f"based on {version.parent or 'nothing'}"]
    if version.parents:
        lines.append(f"consensus of {' and '.join(version.parents)}")
    for value, (plus, minus) in (version.changed or {}).items():
        lines.append(f"label {value}: {plus} voxels added, {minus} removed")
    return "\n".join(lines)
