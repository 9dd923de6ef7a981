"""Learning from corrections in the window: from which cases, with what result, and what follows; without Qt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from ..cases.case import CaseFiles
from ..correction.queue import State, checked_cases
from ..errors import DatasetError, Seg3dError
from ..events import Event, Failed, Finished
from ..training.lesson import FEWEST_CASES, Lesson, choose_held_out
from ..training.run import learned_by, relative
from .queueing import BY_CERTAINTY
from .work import Job

if TYPE_CHECKING:
    from .queueing import CaseQueue
    from .workspace import Workspace

_LEARNED = re.compile(r" learned \d+$")


@dataclass(frozen=True)
class Material:
    """What a model can learn from: checked cases, and the ids of those that it is judged by."""

    cases: tuple[CaseFiles, ...] = ()
    held_out: tuple[str, ...] = ()
    #: Why it cannot learn yet; empty if it can.
    problem: str = ""


class Teacher:
    """Lets a model learn from what was checked, and predicts the cases to do anew if it has become better.

    Parameters
    ----------
    workspace : Workspace
    queue : CaseQueue
        The review list.
    """

    #: A lesson is over, has failed, or was stopped.
    ended = Signal()

    def __init__(self, workspace: Workspace, queue: CaseQueue) -> None:
        self._workspace, self._queue = workspace, queue
        self._job: Job | None = None
        self._predict_after = True
        #: What the last lesson brought; None before the first one and after one that did not end.
        self.lesson: Lesson | None = None
        #: Why the last one brought nothing: message and details.
        self.failure: Failed | None = None
        workspace.job_event.connect(self._take)
        workspace.job_ended.connect(self._end)
        workspace.dataset_changed.connect(self._forget)

    @property
    def job(self) -> Job | None:
        """The lesson that is under way or waits for its turn."""
        return self._job

    def models(self) -> list[tuple[str, Path]]:
        """Return name and path of the models that can learn on, newest first: cross-validations are several."""
        models = self._workspace.models()
        return [(name, path) for name, path in models if path.is_file() or (path / "model.json").is_file()]

    def material(self, model: Path | None) -> Material:
        """Return what a model can learn from now."""
        workspace = self._workspace
        if workspace.dataset is None or workspace.output is None:
            return Material(problem="Open a dataset first.")
        try:
            files = [workspace.with_correction(case) for case in workspace.dataset.cases]
            cases = checked_cases(files, workspace.corrections_folder)
            if model is None:
                return Material(cases, problem="There is no model yet: train one on the Train page.")
            if len(cases) < FEWEST_CASES:
                missing = FEWEST_CASES - len(cases)
                more = f"{missing} more case{'s' * (missing > 1)}"
                return Material(cases, problem=f"Check {more} of the review list first.")
            return Material(cases, choose_held_out(cases, learned_by(model)))
        except Seg3dError as error:
            return Material(problem=str(error))

    def start(self, model: Path, budget_s: float, *, device: str = "auto", predict_after: bool = True) -> None:
        """Learn in the background; `ended` follows.

        Raises
        ------
        DatasetError
            If there is not enough to learn from, or a lesson is under way.
        """
        material, workspace = self.material(model), self._workspace
        if material.problem or workspace.dataset is None:
            raise DatasetError(material.problem)
        if self._job is not None:
            raise DatasetError("A lesson is under way already.")
        output = self._new_run(model)
        kwargs = {
            "model": model,
            "cases": material.cases,
            "output": output,
            "held_out": material.held_out,
            "budget_s": budget_s,
            "device": device,
            "dataset": relative(Path(workspace.dataset.root), output),
        }
        self.lesson, self.failure, self._predict_after = None, None, predict_after
        title = f"Learning from {len(material.cases) - len(material.held_out)} checked cases"
        self._job = Job(title, "napari_seg3d.training.learning:learn_from_corrections", kwargs, "process", "learn")
        workspace.start(self._job)

    def stop(self) -> None:
        """End the lesson; the model stays as it is."""
        if self._job is not None:
            self._workspace.jobs.drop(self._job)

    def _new_run(self, model: Path) -> Path:
        name = _LEARNED.sub("", model.stem if model.is_file() else model.name)
        number = 1
        while (self._workspace.runs / f"{name} learned {number}").exists():
            number += 1
        return self._workspace.runs / f"{name} learned {number}"

    def _take(self, job: Job, event: Event) -> None:
        if job is not self._job:
            return
        if isinstance(event, Finished):
            self.lesson = event.result
        elif isinstance(event, Failed):
            self.failure = event

    def _end(self, job: Job, _how: str) -> None:
        if job is not self._job:
            return
        self._job = None
        run = None if self.lesson is None else self.lesson.run
        if run is not None and self._predict_after:
            self._predict(run, job.kwargs["device"])
        self.ended.emit()

    def _predict(self, run: Path, device: str) -> None:
        """Predict the cases that are still to do with the new model, in the order of the review list."""
        cases = self.to_do()
        if not cases:
            return
        kwargs = {
            "model": run,
            "device": device,
            "mirrors": False,
            "uncertainty": self._queue.order in BY_CERTAINTY,
            "probabilities": False,
            "logits": False,
            "cases": cases,
            "output": self._workspace.predictions_folder / run.name,
            "overwrite": True,
        }
        title = f"Predicting {len(cases)} case{'s' * (len(cases) > 1)} to do"
        self._workspace.start(Job(title, "napari_seg3d.prediction.predict:predict_many", kwargs, "process", "predict"))

    def to_do(self) -> Sequence[CaseFiles]:
        """Return the cases that nobody has begun to correct, in the order of the review list."""
        dataset = self._workspace.dataset
        cases = () if dataset is None else dataset.cases
        left = [case for case in cases if self._queue.review(case.id).state is State.TO_DO]
        return tuple(sorted(left, key=lambda case: self._queue.place(case.id)))

    def _forget(self) -> None:
        self.lesson = self.failure = None
        self.ended.emit()
