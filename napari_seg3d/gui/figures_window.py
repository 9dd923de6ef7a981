"""A window of its own with the figures of the open case, drawn in the background, and the blind test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRect, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QImage, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from ..comparison.gallery import KINDS, Choice, Material
from ..comparison.panel_figures import truth_is_first
from ..comparison.slices import PLANES
from ..errors import Seg3dError
from ..events import Event, Failed, Finished
from .figure_tasks import Drawing
from .widgets import listen, quiet_label
from .work import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtGui import QMouseEvent, QPaintEvent, QShowEvent

    from .workspace import Workspace

#: Milliseconds after the last change before a figure is drawn.
SETTLE_MS = 200
#: Key -> how it is called in the window.
_NAMES = {
    "slices": "Slices: truth, prediction, difference",
    "overview": "Overview: agreement and disagreement",
    "triples": "Prediction, truth, image",
    "classes": "Each class and region",
    "panels": "All images and labels",
    "blind": "Blind test: which one is the truth?",
    "confusion": "Confusion of classes",
    "curves": "Curves of a run",
}
_WITH_PLANE = ("slices", "overview", "triples", "classes", "panels")
_WITH_SLICES = ("slices", "overview", "triples")
_SIZE = QSize(980, 760)


class FiguresWindow(QDialog):
    """Figures of what the Review page compares.

    Parameters
    ----------
    workspace : Workspace
    material : callable
        Gives the case to draw as it is now, or None if there is nothing to draw; may raise `Seg3dError`.
    parent : QWidget, optional
    """

    def __init__(
        self, workspace: Workspace, material: Callable[[], Material | None], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Figures")
        self.resize(_SIZE)
        self._workspace = workspace
        self._material = material
        self._shown_material: Material | None = None
        self._job: Job | None = None
        self._saving: Job | None = None
        self._drawing: Drawing | None = None
        self._round = 0
        self._revealed = False
        self._right = 0
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.draw)
        self._build()
        listen(self, workspace.job_event, self._take_event)
        self._enable()

    def _build(self) -> None:
        self.kind = _combo("What to draw")
        for key, name in _NAMES.items():
            self.kind.addItem(name, key)
            self.kind.setItemData(
                self.kind.count() - 1,
                KINDS.get(key, "loss and Dice against time"),  # type: ignore[call-overload]  # curves are not of a case
                Qt.ItemDataRole.ToolTipRole,
            )
        self.plane = _combo("The plane of the slices; for all images also all three")
        self.structure = _combo("Which class or region to draw")
        self.run = _combo("Which run")
        self.slices = QLineEdit()
        self.slices.setPlaceholderText("slices, e.g. 10, 31, 63")
        self.slices.setToolTip(
            "Numbers of the slices in the file's order, from 0; empty: five through what is labelled"
        )
        self.slices.setMaximumWidth(180)
        self.save_button = QPushButton("Save…")
        self.save_button.setToolTip("Write the figure as it is shown to a PNG file")
        self.save_button.setAutoDefault(False)
        self.picture = Picture()
        self.words = quiet_label()
        line = QHBoxLayout()
        for widget in (self.kind, self.plane, self.structure, self.run, self.slices):
            line.addWidget(widget)
        line.addStretch(1)
        line.addWidget(self.save_button)
        whole = QVBoxLayout(self)
        whole.addLayout(line)
        whole.addWidget(self.picture, 1)
        whole.addWidget(self.words)
        for box in (self.kind, self.plane, self.structure, self.run):
            box.activated.connect(self._changed)
        self.slices.textChanged.connect(self._changed)
        self.save_button.clicked.connect(lambda _=False: self.save())
        self.picture.clicked.connect(self._clicked)

    # What is asked for

    @property
    def choice(self) -> Choice | None:
        """What of a case is asked for; None for curves.

        Raises
        ------
        Seg3dError
            If the slices are no numbers.
        """
        kind = self.kind.currentData()
        if kind == "curves":
            return None
        plane = self.plane.currentData()
        return Choice(
            kind,
            plane=plane or "axial",
            all_planes=plane is None,
            slices=_numbers(self.slices.text()) if kind in _WITH_SLICES else (),
            structure=(self.structure.currentData() or "") if kind in _WITH_SLICES else "",
            seed=self._round,
        )

    def _changed(self) -> None:
        self._revealed = False
        self._enable()
        self._settle.start()

    def _enable(self) -> None:
        kind = self.kind.currentData()
        planes: list[tuple[str, str | None]] = [(plane, plane) for plane in PLANES]
        if kind == "panels":
            planes.insert(0, ("three planes", None))
        if [self.plane.itemData(i) for i in range(self.plane.count())] != [key for _, key in planes]:
            chosen = self.plane.currentData()
            self.plane.clear()
            for name, key in planes:
                self.plane.addItem(name, key)
            self.plane.setCurrentIndex(max(0, self.plane.findData(chosen) if chosen else 0))
        self.plane.setVisible(kind in _WITH_PLANE)
        self.slices.setVisible(kind in _WITH_SLICES)
        self.structure.setVisible(kind in _WITH_SLICES)
        self.run.setVisible(kind == "curves")
        self.save_button.setEnabled(self._drawing is not None and self._drawing.figure is not None)

    def _list_structures(self, material: Material | None) -> None:
        maps = [] if material is None else [m for m in (material.truth, material.predicted) if m is not None]
        tables = [label for label_map in maps for label in label_map.table]
        names = list(
            dict.fromkeys([*(x.name for x in tables), *(x.name for x in (material.regions if material else ()))])
        )
        _refill(self.structure, [("any label", ""), *((name, name) for name in names)])

    def showEvent(self, event: QShowEvent) -> None:
        """Draw when the window is looked at."""
        super().showEvent(event)
        self._settle.start()

    def refresh(self) -> None:
        """Draw again because labels, layers or case have changed; later if the window is hidden."""
        if self.isVisible():
            self._settle.start()

    # Drawing

    def draw(self) -> None:
        """Draw what is chosen, in the background."""
        if self._job is not None:
            self._workspace.quick.drop(self._job)
            self._job = None
        _refill(self.run, [(name, str(path)) for name, path in self._workspace.models() if path.is_dir()])
        try:
            material = self._material()
            self._list_structures(material)
            self._job = self._job_for(material)
        except Seg3dError as error:
            self._show_problem(str(error))
            return
        if self._job is None:
            none = "Choose a prediction and a truth on the Review page."
            self._show_problem(none if self.kind.currentData() != "curves" else "There is no run in this project yet.")
            return
        self._shown_material = material
        self.words.setText("Drawing …")
        self._workspace.start(self._job)

    def _job_for(self, material: Material | None) -> Job | None:
        where = "napari_seg3d.gui.figure_tasks"
        choice = self.choice
        kwargs: dict[str, Any]
        if choice is None:
            run = self.run.currentData()
            kwargs = {"run": Path(run)} if run else {}
            return Job("Drawing", f"{where}:draw_curves", kwargs, "thread", "figure", True) if run else None
        kwargs = {"choice": choice, "material": material, "revealed": self._revealed}
        return Job("Drawing", f"{where}:draw_figure", kwargs, "thread", "figure", True) if material else None

    def _take_event(self, job: Job, event: Event) -> None:
        if job is self._saving and isinstance(event, Finished | Failed):
            self._saving = None
            self.words.setText(event.message if isinstance(event, Failed) else f"Saved {event.result}.")
        if job is not self._job or not isinstance(event, Finished | Failed):
            return
        self._job = None
        drawing = Drawing(None, None, event.message) if isinstance(event, Failed) else event.result
        if drawing.pixels is None:
            self._show_problem(drawing.problem)
            return
        self._drawing = drawing
        self.picture.show_pixels(drawing.pixels)
        self.words.setText(self._in_words())
        self._enable()

    def _show_problem(self, text: str) -> None:
        self._drawing = None
        self.picture.show_pixels(None)
        self.words.setText(text)
        self._enable()

    def _in_words(self) -> str:
        kind = self.kind.currentData()
        if kind == "blind" and not self._revealed:
            return "Click on the side that you take for the truth."
        if kind == "blind":
            truth = "A" if self._truth_is_first() else "B"
            return f"{truth} is the truth. {self._right} of {self._round + 1} right so far. Click for another round."
        return f"{KINDS[kind][0].upper()}{KINDS[kind][1:]}." if kind in KINDS else ""

    # The blind test

    def _truth_is_first(self) -> bool:
        case = "" if self._shown_material is None else self._shown_material.case
        return truth_is_first(case, self._round)

    def _clicked(self, place: float) -> None:
        """Take a click at a place from 0 (left) to 1 as the guess, or begin another round."""
        if self.kind.currentData() != "blind" or self._drawing is None or self._job is not None:
            return
        if self._revealed:
            self._round += 1
        else:
            self._right += (place < 0.5) == self._truth_is_first()
        self._revealed = not self._revealed
        self.draw()

    # Saving

    def save(self) -> None:
        """Write the figure to a file that the user chooses."""
        if self._drawing is None or self._drawing.pixels is None:
            return
        case = "" if self._shown_material is None else self._shown_material.case
        kind = self.kind.currentData()
        folder = self._workspace.output or Path.home()
        name = f"{case}.{kind}.png" if case and kind != "curves" else f"{kind}.png"
        chosen, _ = QFileDialog.getSaveFileName(self, "Save figure", str(folder / name), "PNG (*.png)")
        if not chosen:
            return
        path = Path(chosen if chosen.lower().endswith(".png") else f"{chosen}.png")
        kwargs = {"path": path, "pixels": self._drawing.pixels}
        self._saving = Job(
            "Saving a figure", "napari_seg3d.gui.figure_tasks:write_picture", kwargs, "thread", "figure", True
        )
        self._workspace.start(self._saving)


class Picture(QWidget):
    """Shows pixels as large as it is, in their proportions."""

    #: The place of a click along the picture, from 0 (left) to 1.
    clicked = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._pixmap = QPixmap()
        self.setMinimumSize(320, 240)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def show_pixels(self, pixels: NDArray[np.uint8] | None) -> None:
        """Show (rows, columns, 4) RGBA pixels, or nothing."""
        if pixels is None:
            self._pixmap = QPixmap()
        else:
            rows, columns, _ = pixels.shape
            # QImage shares the array's memory; the pixmap is a copy of its own.
            data = np.ascontiguousarray(pixels)
            self._pixmap = QPixmap.fromImage(
                QImage(data.data, columns, rows, 4 * columns, QImage.Format.Format_RGBA8888)
            )
        self.update()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is shown."""
        return self._pixmap.isNull()

    def _place(self) -> QRect:
        size = self._pixmap.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        return QRect(
            (self.width() - size.width()) // 2, (self.height() - size.height()) // 2, size.width(), size.height()
        )

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the picture in the middle."""
        if self.is_empty:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        place = self._place()
        ratio = self.devicePixelRatioF()
        # Scaled in two steps of Qt's own smooth kind: painting alone leaves thin lines out when it makes smaller.
        scaled = self._pixmap.scaled(
            place.size() * ratio, Qt.AspectRatioMode.IgnoreAspectRatio, Qt.TransformationMode.SmoothTransformation
        )
        scaled.setDevicePixelRatio(ratio)
        painter.drawPixmap(place.topLeft(), scaled)
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell where the picture was clicked."""
        place = self._place()
        if not self.is_empty and place.width():
            self.clicked.emit((event.pos().x() - place.left()) / place.width())


def _combo(tooltip: str) -> QComboBox:
    box = QComboBox()
    box.setToolTip(tooltip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
    return box


def _refill(box: QComboBox, entries: list[tuple[str, str]]) -> None:
    """Put other entries into a box; the chosen one stays if it is still there."""
    if [(box.itemText(i), box.itemData(i)) for i in range(box.count())] == entries:
        return
    chosen = box.currentData()
    box.clear()
    for name, key in entries:
        box.addItem(name, key)
    box.setCurrentIndex(max(0, box.findData(chosen)))


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part for part in text.replace(",", " ").split() if part]
    if not all(part.isdecimal() for part in parts):
        raise Seg3dError("Slices are whole numbers from 0 on, with commas between them: 10, 31, 63.")
    return tuple(int(part) for part in parts)
