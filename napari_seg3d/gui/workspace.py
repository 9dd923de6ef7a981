"""What is open, chosen and running: the one object that every panel is handed. Evented, without Qt.

The workspace knows no layer and no widget. Panels call its actions and listen to its signals; the work itself is done
by the two runners it is given (see `worker.JobRunner`): one for long jobs, one for quick ones such as opening a case.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from psygnal import Signal

from ..cases.corrections import latest_corrections
from ..errors import DatasetError, FileError
from ..events import Event, Failed, Finished, Warned
from ..volumes.atomic import write_text_whole
from ..volumes.files import strip_suffix
from .work import Ending, Job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..cases.case import Case, CaseFiles
    from ..cases.dataset import Dataset
    from ..volumes.volume import LabelMap
    from .layers import Display
    from .tasks import OpenedCase

_Stamp = tuple[tuple[Path, int], ...]
#: How many dataset folders the window remembers.
RECENT = 8


class Emitter(Protocol):
    """A signal of Qt or psygnal."""

    def connect(self, slot: Callable[..., Any], /) -> Any:
        """Call `slot` at every emission."""


class Jobs(Protocol):
    """What the workspace needs of a job runner; `worker.JobRunner` is one, tests have one without threads."""

    started: Emitter
    reported: Emitter
    ended: Emitter
    changed: Emitter

    @property
    def current(self) -> Job | None:
        """The job that runs or is paused."""

    @property
    def queue(self) -> tuple[Job, ...]:
        """The jobs that wait."""

    @property
    def paused(self) -> bool:
        """Whether the current job is paused."""

    def start(self, job: Job) -> None:
        """Carry out a job after those before it."""

    def drop(self, job: Job) -> None:
        """Take a job out of the queue, or stop it."""

    def stop(self) -> None:
        """Ask the current job to save and end."""

    def pause(self) -> None:
        """Ask the current job to wait."""

    def resume(self) -> None:
        """Let a paused job go on."""


class Settings:
    """What the window remembers between sessions: a JSON file that is read once and written whole at every change.

    Parameters
    ----------
    path : Path, optional
        Without one nothing outlives the session.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._values: dict[str, Any] = {}
        if path is not None and path.is_file():
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                # Remembered folders are a convenience: a damaged file is as good as none.
                values = {}
            self._values = values if isinstance(values, dict) else {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the remembered value, or `default` if there is none or it is of another type than `default`."""
        value = self._values.get(key, default)
        return default if default is not None and not isinstance(value, type(default)) else value

    def set(self, key: str, value: Any) -> None:
        """Remember a JSON value."""
        if self._values.get(key) == value:
            return
        self._values[key] = value
        if self._path is not None:
            # A full disk or a protected folder must not keep the user from the work.
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_text_whole(self._path, json.dumps(self._values, indent=1, sort_keys=True))


class Workspace:
    """What is open, chosen and running.

    Parameters
    ----------
    jobs : Jobs
        Carries out long jobs (training, prediction, checks), one after the other.
    quick : Jobs
        Carries out what the window needs at once, beside them.
    settings : Settings
        What is remembered.

    Attributes
    ----------
    dataset : Dataset or None
        The open dataset.
    case_id : str or None
        The open case.
    case : Case or None
        Its images, once they are loaded.
    displays : mapping of str to Display
        How each of its modalities is shown.
    opened_predictions : mapping of Path to LabelMap
        What was predicted for it, as read when it was opened.
    output : Path or None
        The project folder: runs/, predictions/, corrections/ lie in it.
    predictions : dict of str to list of Path
        Predicted label maps by case, newest first.
    corrections : dict of str to Path
        The newest correction by case.
    scores : dict of str to float
        Mean Dice of the newest prediction by case, where there is a truth.
    unsaved : frozenset of str
        Names of the layers with edits that are not saved.
    selected : tuple of str
        Cases that are marked in the table.
    """

    #: Another dataset is open, or none.
    dataset_changed = Signal()
    #: Another case is open, or none; not emitted while it is still being loaded.
    case_changed = Signal()
    #: Predictions, scores, runs or corrections are others than before.
    results_changed = Signal()
    #: Other cases are marked in the table than before.
    selection_changed = Signal()
    #: Which layers have unsaved edits.
    unsaved_changed = Signal()
    job_started = Signal(Job)
    job_event = Signal(Job, Event)
    job_ended = Signal(Job, str)
    #: The queue, or whether the current job is paused.
    jobs_changed = Signal()
    #: Level ("info", "warning", "error"), text for the user, details to unfold (may be empty).
    message = Signal(str, str, str)

    def __init__(self, jobs: Jobs, quick: Jobs, settings: Settings | None = None) -> None:
        self.jobs = jobs
        self.quick = quick
        self.settings = settings or Settings()
        self.dataset: Dataset | None = None
        self.case_id: str | None = None
        self.case: Case | None = None
        self.displays: Mapping[str, Display] = {}
        self.opened_predictions: Mapping[Path, LabelMap] = {}
        self.output: Path | None = None
        self.predictions: dict[str, list[Path]] = {}
        self.corrections: dict[str, Path] = {}
        self.scores: dict[str, float] = {}
        self.unsaved: frozenset[str] = frozenset()
        self.selected: tuple[str, ...] = ()
        self._added_models: list[Path] = []
        self._scored: dict[Path, tuple[int, float]] = {}
        #: A case that was loaded ahead, by its files; what loads one; and the one that is to be shown then.
        self._prepared: tuple[_Stamp, OpenedCase] | None = None
        self._preparing: Job | None = None
        self._prepared_for: _Stamp | None = None
        for runner in (jobs, quick):
            runner.started.connect(self.job_started.emit)
            runner.reported.connect(self._take_event)
            runner.ended.connect(self._take_end)
            runner.changed.connect(self.jobs_changed.emit)

    # Jobs

    def start(self, job: Job) -> None:
        """Carry out a job, after those that were started before it."""
        (self.quick if job.quick else self.jobs).start(job)

    def stop(self) -> None:
        """Ask the current long job to save and end."""
        self.jobs.stop()

    def pause(self) -> None:
        """Let the current long job wait."""
        self.jobs.pause()

    def resume(self) -> None:
        """Let the current long job go on."""
        self.jobs.resume()

    @property
    def current_job(self) -> Job | None:
        """The long job that runs or is paused."""
        return self.jobs.current

    def say(self, level: str, text: str, details: str = "") -> None:
        """Show a message in the panels; `level` is "info", "warning" or "error"."""
        self.message.emit(level, text, details)

    # Datasets and cases

    def open_dataset(self, path: Path) -> None:
        """Open a dataset folder in the background; `dataset_changed` follows, or a message."""
        path = Path(path).expanduser()
        if not path.exists():
            self.say("error", f"There is no folder {path}. Choose the folder that holds the cases.")
            return
        self._forget("open")
        kwargs = {"path": path, "corrections": self.output_for(path) / "corrections"}
        self.start(Job(f"Opening {path.name}", "napari_seg3d.gui.tasks:read_dataset", kwargs, "thread", "open", True))

    def close_dataset(self) -> None:
        """Forget the dataset; nothing on disk changes."""
        self.close_case()
        self._forget("prepare")
        self.dataset = self.output = self._prepared = None
        self.refresh_results()
        self.dataset_changed.emit()

    def open_case(self, case_id: str) -> None:
        """Load a case of the dataset in the background; `case_changed` follows, or a message."""
        if self.dataset is None:
            self.say("error", "No dataset is open. Choose a dataset folder first.")
            return
        self._forget("load", "scores")
        kwargs = self._what_to_load(case_id)
        stamp = _stamp(kwargs)
        if self._preparing is not None and _stamp(self._preparing.kwargs) == stamp:
            self._prepared_for = stamp
            return
        self._forget("prepare")
        if self._prepared is not None and self._prepared[0] == stamp:
            (_, opened), self._prepared = self._prepared, None
            self._show_case(opened)
            return
        self.start(Job(f"Opening {case_id}", "napari_seg3d.gui.tasks:load_case", kwargs, "thread", "load", True))

    def prepare_case(self, case_id: str) -> None:
        """Load a case in the background, so that it opens at once; only the newest one is held in memory."""
        if self.dataset is None or case_id == self.case_id:
            return
        kwargs = self._what_to_load(case_id)
        stamp = _stamp(kwargs)
        under_way = None if self._preparing is None else _stamp(self._preparing.kwargs)
        if stamp in (under_way, None if self._prepared is None else self._prepared[0]):
            return
        self._forget("prepare")
        self._prepared = None
        title = f"Reading {case_id} ahead"
        self._preparing = Job(title, "napari_seg3d.gui.tasks:load_case", kwargs, "thread", "prepare", True)
        self.start(self._preparing)

    def is_prepared(self, case_id: str) -> bool:
        """Whether a case would open at once."""
        return self._prepared is not None and self._prepared[1].case.id == case_id

    def _what_to_load(self, case_id: str) -> dict[str, Any]:
        if self.dataset is None:
            raise DatasetError("No dataset is open. Choose a dataset folder first.")
        prediction = self.predictions.get(case_id, [None])[0]
        return {"files": self.with_correction(self.dataset[case_id]), "prediction": prediction}

    def close_case(self) -> None:
        """Close the open case."""
        self._forget("load")
        self._prepared_for = None
        self._show_case(None)

    def with_correction(self, files: CaseFiles) -> CaseFiles:
        """Return the case's files with its newest correction, also one that was saved after the dataset was opened."""
        newest = self.corrections.get(files.id)
        return files if newest is None else replace(files, corrected=newest)

    def _show_case(self, opened: OpenedCase | None) -> None:
        self.case = None if opened is None else opened.case
        self.displays = {} if opened is None else opened.displays
        self.opened_predictions = {} if opened is None else opened.predictions
        self.case_id = None if self.case is None else self.case.id
        self.set_unsaved(frozenset())
        self.case_changed.emit()

    def select(self, case_ids: tuple[str, ...]) -> None:
        """Mark cases, for example to predict them."""
        if case_ids != self.selected:
            self.selected = case_ids
            self.selection_changed.emit()

    def set_unsaved(self, names: frozenset[str]) -> None:
        """Tell which layers have edits that are not saved."""
        if names != self.unsaved:
            self.unsaved = names
            self.unsaved_changed.emit()

    # The project folder

    def output_for(self, dataset: Path) -> Path:
        """Return the project folder of a dataset: the one chosen before, else ``<dataset>-seg3d`` beside it."""
        dataset = dataset if dataset.is_dir() else dataset.parent
        chosen = self.settings.get("outputs", {}).get(str(dataset.resolve()))
        if chosen:
            return Path(chosen)
        name = f"{dataset.resolve().name}-seg3d"
        beside = dataset.resolve().parent
        return beside / name if os.access(beside, os.W_OK) else Path.home() / "napari-seg3d" / name

    def set_output(self, folder: Path) -> None:
        """Choose another project folder for the open dataset, and remember it."""
        if self.dataset is None:
            return
        outputs = dict(self.settings.get("outputs", {}))
        outputs[str(Path(self.dataset.root).resolve())] = str(folder)
        self.settings.set("outputs", outputs)
        self.output = Path(folder)
        self.refresh_results()

    @property
    def runs(self) -> Path:
        """Folder of the training runs."""
        return self._in_output("runs")

    def _in_output(self, name: str) -> Path:
        if self.output is None:
            raise DatasetError("No dataset is open. Choose a dataset folder first.")
        return self.output / name

    @property
    def predictions_folder(self) -> Path:
        """Folder of the predicted label maps."""
        return self._in_output("predictions")

    @property
    def corrections_folder(self) -> Path:
        """Folder of the corrected label maps."""
        return self._in_output("corrections")

    def models(self) -> list[tuple[str, Path]]:
        """Return name and path of every model: runs of this project, newest first, then those added by hand.

        A cross-validation is one model, the ensemble of its folds.
        """
        newest: dict[Path, float] = {}
        if self.output is not None:
            for pattern, above in (("*/model.json", 0), ("*/fold*/model.json", 1)):
                for file in self.runs.glob(pattern):
                    run = file.parents[above]
                    if run.name.startswith("."):
                        continue  # it is still being judged
                    newest[run] = max(newest.get(run, 0.0), file.stat().st_mtime)
        runs = sorted(newest, key=lambda run: newest[run], reverse=True)
        added = [path for path in self._added_models if path.exists() and path not in runs]
        return [(path.stem if path.is_file() else path.name, path) for path in (*runs, *added)]

    def add_model(self, path: Path) -> None:
        """Offer a run folder or a model file from elsewhere."""
        path = Path(path)
        if not path.exists():
            raise FileError(f"There is no model at {path}.")
        if path not in self._added_models:
            self._added_models.append(path)
            self.results_changed.emit()

    def refresh_results(self) -> None:
        """Look again which predictions and corrections are on disk, and score predictions that are new."""
        self.predictions = {} if self.output is None else _predictions(self.predictions_folder)
        self.corrections = {}
        if self.output is not None and self.corrections_folder.is_dir():
            self.corrections = dict(latest_corrections(self.corrections_folder))
        self._score_predictions()
        self.results_changed.emit()

    def _score_predictions(self) -> None:
        self._forget("scores")
        self.scores = {}
        unscored: dict[str, tuple[Path, CaseFiles]] = {}
        for case_id, paths in self.predictions.items():
            files = self._case_files(case_id)
            if files is None or files.best_truth is None:
                continue
            changed, dice = self._scored.get(paths[0], (0, 0.0))
            if changed == paths[0].stat().st_mtime_ns:
                self.scores[case_id] = dice
            else:
                unscored[case_id] = (paths[0], files)
        if unscored:
            kwargs = {"predictions": unscored}
            self.start(Job("Scoring", "napari_seg3d.gui.tasks:score_predictions", kwargs, "thread", "scores", True))

    def _case_files(self, case_id: str) -> CaseFiles | None:
        found = [] if self.dataset is None else [files for files in self.dataset.cases if files.id == case_id]
        return found[0] if found else None

    # What jobs bring

    def _forget(self, *kinds: str) -> None:
        """Drop quick jobs whose result nobody waits for any more."""
        for job in (self.quick.current, *self.quick.queue):
            if job is not None and job.kind in kinds:
                self.quick.drop(job)

    def _take_event(self, job: Job, event: Event) -> None:
        if isinstance(event, Failed) and job.quick:
            self.say("error", event.message, event.details)
        if isinstance(event, Warned) and job.quick:
            self.say("warning", event.message)
        if isinstance(event, Finished):
            self._take_result(job, event.result)
        self.job_event.emit(job, event)

    def _take_result(self, job: Job, result: Any) -> None:
        if job.kind == "open":
            self.close_case()
            self._forget("prepare")
            self._prepared = None
            self.dataset = result
            self.output = self.output_for(Path(result.root))
            self._remember(Path(result.root))
            self.refresh_results()
            self.dataset_changed.emit()
        elif job.kind == "load":
            self._show_case(result)
        elif job is self._preparing:
            stamp, self._preparing = _stamp(job.kwargs), None
            if self._prepared_for == stamp:
                self._prepared_for = None
                self._show_case(result)
            else:
                self._prepared = stamp, result
        elif job.kind == "scores":
            self._scored.update(result)
            self._score_known()

    def _score_known(self) -> None:
        for case_id, paths in self.predictions.items():
            if paths[0] in self._scored:
                self.scores[case_id] = self._scored[paths[0]][1]
        self.results_changed.emit()

    def _take_end(self, job: Job, how: Ending) -> None:
        if job is self._preparing:
            self._preparing = self._prepared_for = None
        if not job.quick:
            # Runs, predictions and corrections may have been written, also by a job that was stopped.
            self.refresh_results()
        self.job_ended.emit(job, how)
        if job.kind == "load" and not self.quick.queue:
            self._score_predictions()

    def _remember(self, root: Path) -> None:
        recent = [str(root), *(str(path) for path in self.recent if path != root)]
        self.settings.set("recent", recent[:RECENT])

    @property
    def recent(self) -> list[Path]:
        """Dataset folders that were open before and still exist, newest first."""
        paths = [Path(path) for path in self.settings.get("recent", []) if isinstance(path, str)]
        return [path for path in paths if path.exists()]


def _stamp(kwargs: Mapping[str, Any]) -> _Stamp:
    """Return from which files, as they are now, a case is loaded."""
    files: CaseFiles = kwargs["files"]
    paths = [file.path for file in files.modalities.values()]
    paths += [path for path in (files.best_truth, files.mask, kwargs["prediction"]) if path is not None]
    return (Path(files.id), 0), *((path, path.stat().st_mtime_ns if path.exists() else 0) for path in paths)


def _predictions(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    files = [*folder.glob("*.nii.gz"), *folder.glob("*/*.nii.gz"), *folder.glob("*.nii"), *folder.glob("*/*.nii")]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        if not path.name.startswith("."):
            found.setdefault(strip_suffix(path), []).append(path)
    return found
