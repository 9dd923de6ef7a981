"""Two raters on the Review page: how far they agree, a consensus, and a table of all cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from ..correction.raters import Pair, as_csv, compare_raters
from ..errors import Seg3dError
from ..events import Event, Failed, Finished, Progress, Warned, job
from ..volumes.atomic import write_text_whole
from ..volumes.volume import LabelTable
from .plain_table import PlainTable
from .widgets import listen, quiet_label
from .work import Job

if TYPE_CHECKING:
    from .workspace import Workspace

KAPPA = (
    "Cohen's kappa over all voxels, background being a class: 1 is full agreement, 0 what chance alone would reach. "
    "Dice by label and both volumes stand in the table above."
)


@job
def compare_all_raters(folder: Path, case_ids: Sequence[str], tables: dict[str, LabelTable]) -> Iterator[Event]:
    """Compare the newest versions of all raters; Finished.result = tuple of `Pair`.

    Cases with a damaged version are told and left out.
    """
    found: list[Pair] = []
    for done, case_id in enumerate(case_ids):
        yield Progress("comparing raters", done, len(case_ids))
        try:
            found += compare_raters(folder, case_id, tables.get(case_id))
        except Seg3dError as error:
            yield Warned(str(error))
    yield Finished(tuple(found))


class RatersRow(QWidget):
    """What two layers say of each other where neither is a truth; hidden otherwise."""

    consensus_wanted = Signal()
    table_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.words = quiet_label()
        self.words.setToolTip(KAPPA)
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.consensus = QPushButton("Consensus")
        self.consensus.setToolTip(
            "Add a layer that begins with the labels of the first: where both agree they stay, and the places where "
            "they do not are stepped through. Saved, it names both as its parents"
        )
        self.consensus.clicked.connect(lambda _=False: self.consensus_wanted.emit())
        self.table = QPushButton("All cases…")
        self.table.setToolTip("How far raters agree on every case that two of them have corrected; to be saved as CSV")
        self.table.clicked.connect(lambda _=False: self.table_wanted.emit())
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.words, 1)
        line.addWidget(self.consensus)
        line.addWidget(self.table)
        self.hide()

    def show_pair(self, raters: tuple[str, str] | None, *, is_consensus: bool = False) -> None:
        """Show the row if there are two raters; a consensus needs no other."""
        self.setVisible(raters is not None)
        self.consensus.setVisible(not is_consensus)

    def show_kappa(self, kappa: float) -> None:
        """Show how far they agree."""
        self.words.setText(f"Agreement: kappa {kappa:.2f}")


_HEADS = (
    ("Case", ""),
    ("Raters", "By whom the two versions are that are compared: the newest of each"),
    ("Versions", ""),
    ("Kappa", KAPPA),
    ("Mean Dice", "Mean Dice over the labels, 0 to 1"),
    ("Least Dice", "The label on which they agree least"),
)


class RatersWindow(QDialog):
    """The agreement of all raters on all cases of the open dataset.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Agreement of raters")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._workspace = workspace
        self._job: Job | None = None
        self.pairs: tuple[Pair, ...] = ()
        self.table = PlainTable(_HEADS, stretch=0, numbers=(3, 4))
        self.words = quiet_label("Comparing …")
        self.save = QPushButton("Save as CSV…")
        self.save.setToolTip("One line for each case, pair of raters and label: Dice, both volumes, kappa")
        self.save.clicked.connect(lambda _=False: self.save_as())
        self.save.setEnabled(False)
        line = QHBoxLayout()
        line.addWidget(self.words, 1)
        line.addWidget(self.save)
        layout = QVBoxLayout(self)
        layout.addWidget(self.table, 1)
        layout.addLayout(line)
        self.resize(620, 360)
        listen(self, workspace.job_event, self._take)
        self.compare()

    def compare(self) -> None:
        """Compare all raters in the background."""
        workspace = self._workspace
        cases = () if workspace.dataset is None else workspace.dataset.cases
        tables = {case.id: case.table for case in cases if case.id in workspace.corrections}
        kwargs = {"folder": workspace.corrections_folder, "case_ids": tuple(tables), "tables": tables}
        task = "napari_seg3d.gui.raters:compare_all_raters"
        self._job = Job("Comparing raters", task, kwargs, "thread", "raters", quick=True)
        workspace.start(self._job)

    def _take(self, done: Job, event: Event) -> None:
        if done is not self._job:
            return
        if isinstance(event, Finished):
            self.pairs = event.result
            self._show()
        elif isinstance(event, Failed):
            self.words.setText(event.message)

    def _show(self) -> None:
        self.table.setRowCount(len(self.pairs))
        for row, pair in enumerate(self.pairs):
            dices = pair.agreement.by_label
            least = min(dices, key=dices.__getitem__, default="")
            texts = (
                pair.case_id,
                " and ".join(pair.raters),
                ", ".join(f"v{version.version:03d}" for version in pair.versions),
                f"{pair.agreement.kappa:.2f}",
                f"{pair.mean_dice:.2f}",
                f"{dices[least]:.2f} ({least})" if least else "–",
            )
            tooltip = "\n".join(
                f"{label}: Dice {dice:.3f}, {pair.agreement.first_ml[label]:.2f} and "
                f"{pair.agreement.second_ml[label]:.2f} ml"
                for label, dice in dices.items()
            )
            for column, text in enumerate(texts):
                self.table.write(row, column, text, tooltip)
        self.save.setEnabled(bool(self.pairs))
        cases = len({pair.case_id for pair in self.pairs})
        self.words.setText(
            f"{cases} case{'' if cases == 1 else 's'} with two raters"
            if cases
            else "No case has versions of two raters. Who saves a version is taken from the name of the user at work."
        )

    def save_as(self) -> None:
        """Save the table to a file that the user chooses; Qt's dialogue asks before it replaces one."""
        folder = self._workspace.output or Path.home()
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Save the agreement as", str(folder / "agreement.csv"), "Table (*.csv)"
        )
        if not chosen:
            return
        path = Path(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv")
        try:
            write_text_whole(path, as_csv(self.pairs))
        except Seg3dError as error:
            self.words.setText(str(error))
        else:
            self.words.setText(f"Saved {path.name}.")
