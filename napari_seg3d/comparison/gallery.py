"""A folder of pictures for a table of scores: one of each case, and an overview."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..cases.dataset import Dataset
from ..events import Event, Finished, Progress, Saved, job
from ..volumes.files import read_label_map
from .canvas import save_figure
from .figures import case_figure, overview_figure
from .report import Table, label_files, truth_files


@job
def write_figures(folder: Path, table: Table, predictions: Path, truths: Path | Dataset) -> Iterator[Event]:
    """Draw what `napari_seg3d.comparison.report.evaluate` has compared.

    Parameters
    ----------
    folder : Path
        Gets ``overview.png`` and ``<case>.png``; older ones are replaced.
    table : Table
        From `evaluate` with the same predictions and truths.
    predictions, truths : Path, Path or Dataset
        As given to `evaluate`. A dataset's images are shown beneath the labels.

    Yields
    ------
    Event
        Progress, `Saved` for each picture; the last is Finished with a tuple of paths.
    """
    ours, theirs = label_files(predictions), truth_files(truths)
    written = [save_figure(folder / "overview.png", overview_figure(table))]
    yield Saved(written[0], "figure")
    for done, scores in enumerate(table.cases):
        yield Progress(f"Drawing {scores.case}", done, len(table.cases))
        truth_file = theirs[scores.case] if scores.case in theirs else next(iter(theirs.values()))
        truth = truth_file.read(ours[scores.case])
        predicted = read_label_map(ours[scores.case], truth.table)
        image = next(iter(truth_file.read_images(list(truth_file.images)[:1]).values()), None)
        written.append(save_figure(folder / f"{scores.case}.png", case_figure(predicted, truth, image, scores)))
        yield Saved(written[-1], "figure")
    yield Finished(tuple(written))
