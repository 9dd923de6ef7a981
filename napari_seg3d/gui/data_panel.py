"""The Data page: choose a dataset, see its cases and its problems, open a case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QTableView,
    QToolButton,
    QWidget,
)

from ..correction.queue import State
from ..errors import Seg3dError
from ..events import Event, Failed, Finished
from .case_table import CASE, DICE, MODALITIES, PREDICTION, STATE, TRUTH, CaseFilter, CaseTable
from .layers import PLANES, orientation_note
from .queueing import ORDERS
from .restore_strip import RestoreStrip
from .saving import save_all_or_tell
from .session import session_for
from .widgets import EmptyState, MainButton, Panel, Section, listen, quiet_label, swatches
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

    from ..cases.dataset import Dataset, Problem
    from ..volumes.geometry import Geometry
    from .workspace import Workspace

#: Number of made-up cases in the sample study.
SAMPLE_CASES = 8


class DataPanel(Panel):
    """The Data page of a viewer."""

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(workspace, viewer, parent)
        session = session_for(viewer)
        self._view, self._saver, self._keeper = session.view, session.saver, session.keeper
        self._queue = session.queue
        self._after_saved: Callable[[], None] | None = None
        self._checked: tuple[Problem, ...] = ()
        self._sample: tuple[Job, Path] | None = None
        self.setAcceptDrops(True)
        self._build()
        self.set_empty_state(self._empty_state())
        listen(self, workspace.dataset_changed, self._show_dataset)
        listen(self, workspace.case_changed, self._show_case)
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.job_ended, self._forget_sample)
        listen(self, self._saver.saved, self._after_saving)
        listen(self, self._saver.failed, self._after_failed_saving)
        self._show_dataset()
        self._show_case()

    # What the page is made of

    def _empty_state(self) -> EmptyState:
        actions: list[tuple[str, str, Callable[[], object]]] = [
            ("Open folder…", "Choose the folder that holds the cases", self.choose_folder),
            (
                "Try the sample study",
                f"Make {SAMPLE_CASES} brain studies with a tumour in your home folder, and open them",
                self.open_sample,
            ),
        ]
        for path in self.workspace.recent[:1]:
            actions.append((f"Open {path.name} again", str(path), partial(self.open_folder, path)))
        return EmptyState(
            "Open a dataset folder, or try the sample study",
            "Brain tumour folders (BraTS), Decathlon folders, and images/ with labels/ are understood. "
            "You can also drop a folder here.",
            actions,
        )

    def _build(self) -> None:
        self._folder = QComboBox()
        self._folder.setToolTip("The open dataset; the list holds those that were open before")
        self._folder.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._folder.activated.connect(self._open_recent)
        choose = QPushButton("Open…")
        choose.setToolTip("Choose another dataset folder; you can also drop one on this page")
        choose.clicked.connect(lambda _=False: self.choose_folder())
        top = QHBoxLayout()
        top.addWidget(self._folder, 1)
        top.addWidget(choose)
        self.body.addLayout(top)
        self.body.addWidget(RestoreStrip(self._keeper, self.workspace, self._leave_for))

        self._facts = quiet_label()
        self._facts.setToolTip("What was found in the folder")
        self._labels = quiet_label()
        self._labels.setToolTip("The classes of the dataset and their colours, the same everywhere")
        self.body.addWidget(self._facts)
        self.body.addWidget(self._labels)
        self.body.addWidget(self._build_problems())

        self._table = CaseTable(self.workspace, self, self._queue)
        self._filter = CaseFilter(self._table)
        line = QHBoxLayout()
        self._words = QLineEdit()
        self._words.setPlaceholderText("Filter cases")
        self._words.setClearButtonEnabled(True)
        self._words.setToolTip("Show only cases whose name or state hold these words")
        self._words.textChanged.connect(self._filter.set_words)
        self._check = QPushButton("Check")
        self._check.setToolTip(
            "Read every file of every case and list everything that is wrong; runs in the background"
        )
        self._check.clicked.connect(self.check)
        line.addWidget(self._words, 1)
        line.addWidget(self._check)
        self.body.addLayout(line)
        self.body.addLayout(self._build_queue())
        self.body.addWidget(self._build_table(), 1)
        self.body.addLayout(self._build_buttons())
        self._geometry = quiet_label()
        self._geometry.setToolTip("The grid of the open case: voxels, their size, and where the voxel axes point to")
        self.body.addWidget(self._geometry)
        self.body.addLayout(self._build_planes())

    def _build_queue(self) -> QHBoxLayout:
        self._shown_states = QComboBox()
        self._shown_states.setToolTip("Show only cases in this state of the review")
        self._shown_states.addItem("All states", None)
        for state in State:
            self._shown_states.addItem(str(state.value).capitalize(), state)
        self._shown_states.activated.connect(lambda _: self._filter.set_state(self._shown_states.currentData()))
        self._orders = QComboBox()
        self._orders.setToolTip("The order of the review list, in which the next case is opened")
        for order, name in ORDERS.items():
            self._orders.addItem(name, order)
        self._orders.activated.connect(lambda _: self.arrange(self._orders.currentData()))
        line = QHBoxLayout()
        for box in (self._shown_states, self._orders):
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            line.addWidget(box, 1)
        for arrow, by, words in ((Qt.ArrowType.UpArrow, -1, "up"), (Qt.ArrowType.DownArrow, 1, "down")):
            button = QToolButton()
            button.setArrowType(arrow)
            button.setToolTip(f"Move the chosen case {words} in the review list, which makes it a list by hand")
            button.clicked.connect(lambda _=False, by=by: self.move(by))
            line.addWidget(button)
        listen(self, self._queue.changed, self._show_order)
        return line

    def arrange(self, order: str) -> None:
        """Sort the review list: by a key of `queueing.ORDERS`."""
        self._queue.arrange(order)
        self._cases.sortByColumn(CASE, Qt.SortOrder.AscendingOrder)

    def move(self, by: int) -> None:
        """Move the chosen case in the review list by so many places."""
        index = self._cases.currentIndex()
        if not index.isValid():
            return
        case_id = self._table.case_id(self._filter.mapToSource(index).row())
        try:
            self._queue.move(case_id, by)
        except Seg3dError as error:
            self.messages.show_message("error", str(error))
        self._cases.sortByColumn(CASE, Qt.SortOrder.AscendingOrder)

    def _show_order(self) -> None:
        self._orders.setCurrentIndex(self._orders.findData(self._queue.order))
        if self._shown_states.currentData() is not None:
            self._filter.set_state(self._shown_states.currentData())

    def _build_problems(self) -> QWidget:
        self._problems = Section("Problems", tooltip="What is odd about the folder, all at once")
        self._problem_list = QPlainTextEdit()
        self._problem_list.setReadOnly(True)
        self._problem_list.setToolTip("All problems, one a line, to read or to copy")
        self._problem_list.setMaximumHeight(140)
        self._problems.body.addWidget(self._problem_list)
        return self._problems

    def _build_table(self) -> QTableView:
        view = self._cases = QTableView()
        view.setModel(self._filter)
        view.setSortingEnabled(True)
        view.sortByColumn(CASE, Qt.SortOrder.AscendingOrder)
        view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setShowGrid(False)
        view.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        view.setWordWrap(False)
        view.setMinimumHeight(160)
        view.verticalHeader().hide()
        view.verticalHeader().setDefaultSectionSize(24)
        header = view.horizontalHeader()
        header.setMinimumSectionSize(36)
        header.setHighlightSections(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setSectionResizeMode(CASE, QHeaderView.ResizeMode.Stretch)
        for column, width in ((MODALITIES, 52), (TRUTH, 42), (PREDICTION, 42), (DICE, 42), (STATE, 88)):
            view.setColumnWidth(column, width)
        view.doubleClicked.connect(self._open_index)
        enter = QShortcut(QKeySequence(Qt.Key.Key_Return), view)
        enter.setContext(Qt.ShortcutContext.WidgetShortcut)
        enter.activated.connect(lambda: self._open_index(view.currentIndex()))
        view.selectionModel().selectionChanged.connect(self._selection_changed)
        return view

    def _build_buttons(self) -> QHBoxLayout:
        self._open = MainButton("Open case", "Show all images of the chosen case, its truth and its prediction")
        self._open.clicked.connect(lambda _=False: self._open_index(self._cases.currentIndex()))
        self._next = QPushButton("Next case")
        self._next.setToolTip("Open the case below the open one in the table")
        self._next.clicked.connect(lambda _=False: self.open_next())
        self._close = QPushButton("Close case")
        self._close.setToolTip("Take the layers of the open case away")
        self._close.clicked.connect(lambda _=False: self._leave_for(""))
        line = QHBoxLayout()
        line.addWidget(self._open, 1)
        line.addWidget(self._next)
        line.addWidget(self._close)
        return line

    def _build_planes(self) -> QHBoxLayout:
        line = QHBoxLayout()
        line.setSpacing(0)
        self._planes = QButtonGroup(self)
        for name in PLANES:
            button = QPushButton(name.capitalize())
            button.setCheckable(True)
            button.setToolTip(f"Show {name} slices as radiologists read them (Shift+{name[0].upper()})")
            button.clicked.connect(lambda _=False, name=name: self._view.show_plane(name))
            self._planes.addButton(button)
            line.addWidget(button)
        listen(self, self.viewer.dims.events.order, self._show_plane_choice)
        self._show_plane_choice()
        return line

    # Datasets

    def choose_folder(self) -> None:
        """Let the user choose a dataset folder."""
        before = self.workspace.recent[0] if self.workspace.recent else Path.home()
        chosen = QFileDialog.getExistingDirectory(self, "Open a dataset folder", str(before))
        if chosen:
            self.open_folder(Path(chosen))

    def open_folder(self, path: Path) -> None:
        """Open a dataset, after the question about unsaved edits."""
        if self._may_leave(then=lambda: self.open_folder(path)):
            self.messages.clear()
            self.workspace.open_dataset(path)

    def open_sample(self) -> None:
        """Open the made-up study; make it first if it is not there."""
        if self._sample is not None:
            return
        folder = Path.home() / "napari-seg3d" / "sample study"
        if folder.is_dir() and any(folder.iterdir()):
            self.open_folder(folder)
            return
        job = Job(
            "Making the sample study",
            "napari_seg3d.cases.phantoms:write_phantom_dataset",
            {"folder": folder, "count": SAMPLE_CASES},
            kind="sample",
        )
        self._sample = job, folder
        self.workspace.start(job)

    def _open_recent(self, index: int) -> None:
        path = self._folder.itemData(index)
        if path is not None and (self.workspace.dataset is None or Path(path) != Path(self.workspace.dataset.root)):
            self.open_folder(Path(path))

    def _show_dataset(self) -> None:
        dataset = self.workspace.dataset
        self._checked = ()
        self.show_empty(dataset is None)
        self._folder.clear()
        recent = self.workspace.recent
        names = [path.name for path in recent]
        for path in recent:
            self._folder.addItem(path.name if names.count(path.name) == 1 else str(path), str(path))
            self._folder.setItemData(self._folder.count() - 1, str(path), Qt.ItemDataRole.ToolTipRole)
        if dataset is None:
            return
        self._facts.setText(_facts(dataset))
        self._labels.setText(swatches((label.name, label.color) for label in dataset.table))
        self._labels.setVisible(len(dataset.table) > 0)
        self._show_problems(dataset.problems)
        if dataset.cases:
            self._cases.selectRow(0)
        several = len(dataset.modalities) > 1
        self._cases.setColumnHidden(MODALITIES, not several)
        self._enable_buttons()

    def _show_problems(self, problems: tuple[Problem, ...], *, checked: bool = False) -> None:
        self._problems.setVisible(bool(problems))
        errors = [problem for problem in problems if problem.severity == "error"]
        warnings = [problem for problem in problems if problem.severity != "error"]
        self._problems.set_title(f"⚠ {_counted(errors, 'error')}, {_counted(warnings, 'warning')}")
        lines = [f"✕ {_line(problem)}" for problem in errors] + [_line(problem) for problem in warnings]
        self._problem_list.setPlainText("\n".join(lines))
        self._problems.set_open(checked and bool(problems))

    def check(self) -> None:
        """Read every case in the background and list all problems."""
        if self.workspace.dataset is not None:
            kwargs = {"cases": self.workspace.dataset}
            self.workspace.start(
                Job("Checking the cases", "napari_seg3d.cases.check:check_cases", kwargs, kind="check")
            )

    def _take_event(self, job: Job, event: Event) -> None:
        if isinstance(event, Failed) and job.kind in ("check", "sample"):
            self.messages.show_message("error", event.message, event.details)
        if not isinstance(event, Finished):
            return
        dataset = self.workspace.dataset
        if job.kind == "check" and dataset is not None and job.kwargs["cases"] is dataset:
            self._show_problems(tuple(dict.fromkeys((*dataset.problems, *event.result))), checked=True)
            found = "listed above" if event.result else "nothing is wrong"
            self.messages.show_message("warning" if event.result else "info", f"{event.message} {found.capitalize()}.")
        if self._sample is not None and job is self._sample[0]:
            self.open_folder(self._sample[1])

    def _forget_sample(self, job: Job) -> None:
        if self._sample is not None and job is self._sample[0]:
            self._sample = None

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Accept folders and files."""
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what was dropped."""
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.open_folder(paths[0])

    # Cases

    def _open_index(self, index: QModelIndex) -> None:
        if index.isValid():
            self._leave_for(self._table.case_id(self._filter.mapToSource(index).row()))

    def open_next(self) -> None:
        """Open the case below the open one, in the order of the table."""
        row = self._table.row_of(self.workspace.case_id)
        below = 0 if row is None else self._filter.mapFromSource(self._table.index(row, 0)).row() + 1
        if below < self._filter.rowCount():
            self._cases.selectRow(below)
            self._open_index(self._filter.index(below, 0))

    def _leave_for(self, case_id: str) -> None:
        """Open another case, or none for an empty id, after the question about unsaved edits."""
        if not self._may_leave(then=lambda: self._leave_for(case_id)):
            return
        self.messages.clear()
        if case_id:
            self.workspace.open_case(case_id)
        else:
            self.workspace.close_case()

    def _may_leave(self, then: Callable[[], None]) -> bool:
        """Whether the open case may be closed now; if the user wants to save first, `then` is called afterwards."""
        unsaved = self._view.unsaved_layers()
        if not unsaved:
            return True
        names = ", ".join(layer.name for layer in unsaved)
        answer = self._ask(f"Edits of {names} are not saved.")
        if answer == QMessageBox.StandardButton.Save:
            self._after_saved = then if save_all_or_tell(self._saver, self._view, self.workspace) else None
        elif answer == QMessageBox.StandardButton.Discard:
            self._keeper.discard_edits(unsaved)
        return bool(answer == QMessageBox.StandardButton.Discard)

    def _ask(self, text: str) -> Any:
        box = QMessageBox(self)
        box.setWindowTitle("Unsaved edits")
        box.setText(text)
        box.setInformativeText("Save them as a new correction before the case is closed?")
        buttons = QMessageBox.StandardButton
        box.setStandardButtons(buttons.Save | buttons.Discard | buttons.Cancel)
        box.setDefaultButton(buttons.Save)
        return box.exec()

    def _after_saving(self, _layer: object, _path: Path) -> None:
        if self._after_saved is not None and not self._view.unsaved_layers():
            then, self._after_saved = self._after_saved, None
            then()

    def _after_failed_saving(self, layer: Labels, text: str, details: str) -> None:
        if self._after_saved is not None:
            self._after_saved = None
            self.messages.show_message("error", f"{layer.name} is not saved, so the case stays open. {text}", details)

    def _show_case(self) -> None:
        case = self.workspace.case
        self._geometry.setText("" if case is None else _grid(case.geometry))
        self._geometry.setVisible(case is not None)
        for button in self._planes.buttons():
            button.setEnabled(case is not None)
        row = self._table.row_of(self.workspace.case_id)
        if row is not None:
            self._cases.setCurrentIndex(self._filter.mapFromSource(self._table.index(row, 0)))
        self._enable_buttons()

    def _selection_changed(self) -> None:
        rows = sorted(index.row() for index in self._cases.selectionModel().selectedRows())
        ids = (self._table.case_id(self._filter.mapToSource(self._filter.index(row, 0)).row()) for row in rows)
        self.workspace.select(tuple(ids))
        self._enable_buttons()

    def _enable_buttons(self) -> None:
        self._open.setEnabled(self._cases.currentIndex().isValid())
        self._next.setEnabled(self._filter.rowCount() > 0)
        self._close.setEnabled(self.workspace.case is not None)

    def _show_plane_choice(self) -> None:
        shown = tuple(axis - self.viewer.dims.ndim + 3 for axis in self.viewer.dims.order[-3:])
        for button, order in zip(self._planes.buttons(), PLANES.values(), strict=True):
            button.setChecked(shown == order)


def _counted(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _line(problem: Problem) -> str:
    name = problem.path.name
    return problem.message if name in problem.message else f"{name}: {problem.message}"


def _facts(dataset: Dataset) -> str:
    """Say in one line what a dataset is: layout, number of cases, modalities, classes."""
    labelled = len(dataset.labelled)
    counted = _counted(dataset.cases, "case")
    if labelled < len(dataset.cases):
        counted += f" ({labelled} labelled)"
    return " · ".join((dataset.layout[:1].upper() + dataset.layout[1:], counted, ", ".join(dataset.modalities)))


def _grid(geometry: Geometry) -> str:
    """Say in one line what a grid is: "240×240×155 voxels of 1×1×1 mm, LPS"."""
    voxels = "×".join(str(size) for size in geometry.shape)
    spacing = "×".join(f"{size:.3g}" for size in geometry.spacing_mm)
    note = orientation_note(geometry)
    return f"{voxels} voxels of {spacing} mm, stored {geometry.orientation}" + (f". {note}" if note else "")
