"""Training: cases in, a model out, with events on the way.

Read `_learn` from top to bottom: it is the order in which things happen. Closing the generator stops a training at any
event; its ``finally`` saves, so that `resume` goes on at the very next step. With a number of epochs the weights after
a resume are those of an uninterrupted run, bit for bit on a CPU with as many threads; with a time budget the length
and the learning rate follow the clock.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cases.case import Case, CaseFiles
from ..comparison.overlap import overlap
from ..errors import DatasetError
from ..events import EpochDone, Event, Finished, Progress, Saved, Step, Validated, Warned, job
from ..model.checkpoint import MODEL_FILE, Model, load_model, save_model
from ..model.device import choose_device, device_name, memory_mb
from ..model.plan import Plan
from ..model.prepare import restore
from ..prediction.window import predict_windows
from ..volumes.files import read_label_map, write_label_map
from ..volumes.volume import LabelMap
from .batches import batches
from .learner import Learner
from .patches import PreparedCases, StoredCase, labelled
from .run import LAST, RunFacts, RunFolder, now, versions

#: Under a time budget validation gets at most this part of the time, apart from the last one.
VALIDATION_SHARE = 0.12
#: Seconds between two checkpoints within a long round.
CHECKPOINT_EVERY_S = 120.0

Source = Case | CaseFiles


@job
def train(
    plan: Plan,
    cases: Sequence[Source],
    output: Path,
    *,
    validation: Sequence[Source] = (),
    start: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    dataset: str = "",
) -> Iterator[Event]:
    """Train a network.

    Parameters
    ----------
    plan : Plan
        All settings.
    cases, validation : sequences of Case or CaseFiles
        What is learned from, and what the model is judged by; unlabelled ones are left out.
    output : Path
        The run folder to make; must not exist or be empty.
    start : Path, optional
        Run folder or model file whose weights are taken over (fine-tuning).
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    threads : int, optional
        Threads on the CPU; by default torch's choice.
    dataset : str
        Where the cases come from, for the record.

    Yields
    ------
    Event
        Progress, Step, EpochDone, Validated, Saved, Warned; at the end Finished with the run folder, or Failed.
    """
    began = time.monotonic()
    chosen = _computing_device(device, threads)
    training = list(labelled(cases))
    validation = [] if not validation else list(labelled(validation))
    if overlap := {c.id for c in training} & {c.id for c in validation}:
        raise DatasetError(f"The cases {', '.join(sorted(overlap))} are in both training and validation; choose one.")
    model = None if start is None else load_model(start)
    facts = RunFacts(
        dataset=dataset,
        train_ids=tuple(c.id for c in training),
        validation_ids=tuple(c.id for c in validation),
        started=now(),
        state="running",
        device=device_name(chosen),
        threads=torch.get_num_threads(),
        start_model=None if model is None else model.sha256,
        versions=versions(),
    )
    run = RunFolder.create(Path(output), plan, facts)
    yield from _recorded(run, _learn(run, plan, training, validation, chosen, model, began, resuming=False))


@job
def resume(
    output: Path, cases: Sequence[Source], *, device: str = "auto", threads: int | None = None
) -> Iterator[Event]:
    """Go on with a training that was stopped, killed or failed.

    Parameters
    ----------
    output : Path
        Its run folder.
    cases : sequence of Case or CaseFiles
        The dataset; the run's own cases are picked by their ids.

    Yields
    ------
    Event
        As `train`.
    """
    began = time.monotonic()
    run = RunFolder.open(Path(output))
    plan, facts = run.plan, run.facts()
    chosen = _computing_device(device, threads or facts.threads)
    by_id = {case.id: case for case in cases}
    if missing := [name for name in (*facts.train_ids, *facts.validation_ids) if name not in by_id]:
        raise DatasetError(
            f"The run was made with cases that are not in this dataset: {', '.join(missing[:5])}. Open the right one."
        )
    training, validation = [by_id[i] for i in facts.train_ids], [by_id[i] for i in facts.validation_ids]
    run.write_facts(replace(facts, state="running", device=device_name(chosen), threads=torch.get_num_threads()))
    yield from _recorded(run, _learn(run, plan, training, validation, chosen, None, began, resuming=True))


def _recorded(run: RunFolder, events: Generator[Event, None, None]) -> Iterator[Event]:
    """Pass events on, keep those that tell a run's story, and leave its state in `run.json`."""
    state = "stopped"
    try:
        with run.locked():
            for event in events:
                if isinstance(event, EpochDone | Validated | Warned):
                    run.record(event)
                if isinstance(event, EpochDone | Validated | Finished):
                    run.write_history()
                if isinstance(event, Finished):
                    state = "finished"
                yield event
    except Exception:
        state = "failed"
        raise
    finally:
        # Closing the inner generator first lets it save before the state is written.
        events.close()
        run.write_facts(replace(run.facts(), state=state))


def _learn(
    run: RunFolder,
    plan: Plan,
    training: Sequence[Source],
    validation: Sequence[Source],
    device: torch.device,
    start: Model | None,
    began: float,
    resuming: bool,
) -> Generator[Event, None, None]:
    store = PreparedCases(run.folder / "prepared")
    learner = Learner(plan, device)
    clock = _Clock(plan, began)
    whole = False  # whether the learner is between two steps, where its state may be saved
    try:
        if start is not None:
            for note in learner.start_from(start):
                yield Warned(f"Fine-tuning: {note}.")
        if resuming and run.checkpoint.is_file():
            learner.load(run)
            clock.before_s = learner.elapsed_s
        cases: list[StoredCase] = []
        judged: list[StoredCase] = []
        total = len(training) + len(validation)
        for number, source in enumerate((*training, *validation)):
            yield Progress("Preparing cases", number, total, clock.rest(number, total))
            (cases if number < len(training) else judged).append(store.add(source, plan))
        yield Progress("Preparing cases", total, total, 0.0)
        if not judged:
            yield Warned("There are no validation cases: the newest model is kept, and no Dice is known.")
        whole = True
        if learner.step:  # a stop may have come between the last step of a round and its validation
            yield from _end_of_round(run, learner, judged, clock)
        saved_at = time.monotonic()
        with closing(batches(cases, plan, learner.step, device)) as supply:
            while not clock.over(learner):
                progress = clock.progress(learner)
                whole = False
                loss = learner.learn(next(supply), progress)
                whole = True
                learner.elapsed_s = clock.elapsed_s
                rate, left = learner.learning_rate(progress), clock.seconds_left(learner)
                if loss is None:
                    yield Warned(f"Step {learner.step} was left out: its loss was not a finite number.")
                else:
                    yield Step(learner.step, learner.epoch, loss, rate, clock.elapsed_s, left, memory_mb(device))
                yield from _end_of_round(run, learner, judged, clock)
                if learner.step % plan.steps_per_epoch == 0 or time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                    learner.save(run)
                    saved_at = time.monotonic()
                    yield Saved(run.checkpoint, "checkpoint")
        if learner.epoch_losses:
            yield _round(learner, clock)
        if judged and learner.validated_step != learner.step:
            yield from _validate(run, learner, judged, clock)
        yield from _save_last(run, learner)
        learner.save(run)
        whole = False
        yield Finished(run.folder, _summary(learner), clock.elapsed_s)
    finally:
        # A stop arrives here too, as GeneratorExit at one of the yields.
        if whole and learner.step:
            learner.save(run)
            for _ in _save_last(run, learner):
                pass
        store.remove()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _end_of_round(run: RunFolder, learner: Learner, judged: Sequence[StoredCase], clock: _Clock) -> Iterator[Event]:
    if learner.step % learner.plan.steps_per_epoch:
        return
    if learner.epoch_losses:
        yield _round(learner, clock)
    if judged and clock.time_to_validate(learner):
        yield from _validate(run, learner, judged, clock)


def _round(learner: Learner, clock: _Clock) -> EpochDone:
    loss = float(np.mean(learner.epoch_losses)) if learner.epoch_losses else float("nan")
    learner.epoch_losses = []
    learner.epoch += 1
    return EpochDone(
        learner.epoch,
        learner.plan.epochs,
        loss,
        learner.learning_rate(clock.progress(learner)),
        learner.step,
        clock.elapsed_s,
        clock.seconds_left(learner),
    )


def _validate(run: RunFolder, learner: Learner, cases: Sequence[StoredCase], clock: _Clock) -> Iterator[Event]:
    """Predict whole cases on their own grids, score them, and keep the model when it is the best so far."""
    plan, began = learner.plan, time.monotonic()
    by_case: dict[str, dict[str, float]] = {}
    learner.network.eval()
    for number, case in enumerate(cases):
        image = torch.from_numpy(np.asarray(case.image, dtype=np.float32))
        windows = predict_windows(learner.network, image, plan.patch_voxels, plan.window_overlap, learner.device)
        for done, total, logits in windows:
            yield Progress("Validating", number + done / total, len(cases))
            if logits is not None:
                predicted = restore(logits, case.grid, plan)
        truth = _truth_of(case.source)
        by_case[case.id] = {score.name: score.dice for score in overlap(predicted, truth.data, plan.scored)}
        _keep_prediction(run, case, predicted, truth)
    dice = {name: float(np.mean([scores[name] for scores in by_case.values()])) for name in plan.output_names}
    mean = float(np.mean(list(dice.values())))
    best = mean > learner.best_dice
    if best:
        learner.best_dice = mean
        save_model(run.folder / MODEL_FILE, learner.model(_history(learner, dice)))
    learner.validated_step = learner.step
    clock.validation_took(time.monotonic() - began)
    yield Validated(learner.epoch, learner.step, dice, mean, by_case, best, clock.elapsed_s)
    if best:
        yield Saved(run.folder / MODEL_FILE, "model")


def _truth_of(source: Source) -> LabelMap:
    truth = source.truth if isinstance(source, Case) else read_label_map(source.best_truth or "", source.table)
    assert isinstance(truth, LabelMap)  # only labelled cases are validated
    return truth


def _keep_prediction(run: RunFolder, case: StoredCase, predicted: np.ndarray[Any, Any], truth: LabelMap) -> None:
    folder = run.folder / "validation"
    folder.mkdir(exist_ok=True)
    label_map = LabelMap(predicted, case.grid.case, run.plan.label_table, case.id)
    write_label_map(folder / f"{case.id}.nii.gz", label_map, overwrite=True, like=truth.source)


def _save_last(run: RunFolder, learner: Learner) -> Iterator[Event]:
    """Write the newest model; it is also the model to predict with as long as there is no validated one."""
    model = learner.model(_history(learner, None))
    save_model(run.folder / LAST, model)
    yield Saved(run.folder / LAST, "newest model")
    if learner.best_dice < 0:
        save_model(run.folder / MODEL_FILE, model)
        yield Saved(run.folder / MODEL_FILE, "model")


def _history(learner: Learner, dice: dict[str, float] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"epoch": learner.epoch, "step": learner.step, "elapsed_s": round(learner.elapsed_s, 1)}
    return facts if dice is None else {**facts, "validation_dice": dice, "date": now()}


def _summary(learner: Learner) -> str:
    best = f", best mean Dice {learner.best_dice:.3f}" if learner.best_dice >= 0 else ""
    return f"Trained {learner.step} steps in {learner.elapsed_s / 60:.1f} minutes{best}."


def _computing_device(name: str, threads: int | None) -> torch.device:
    device = choose_device(name)
    if threads is not None:
        torch.set_num_threads(threads)
    # Denormal numbers, which appear as activations die out, are some hundred times slower on a CPU.
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    return device


@dataclass
class _Clock:
    """How far a training is: by steps when epochs are planned, by monotonic time when a budget is."""

    plan: Plan
    began: float
    before_s: float = 0.0
    validating_s: float = 0.0
    longest_validation_s: float = 0.0
    first_step: int | None = None
    steps_began: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds spent on this training, over all sessions."""
        return self.before_s + time.monotonic() - self.began

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole training, or None under a budget."""
        return None if self.plan.epochs is None else self.plan.epochs * self.plan.steps_per_epoch

    def progress(self, learner: Learner) -> float:
        """Part of the training that is over, from 0 to 1."""
        if self.total_steps is not None:
            return min(1.0, learner.step / self.total_steps)
        return min(1.0, self.elapsed_s / self._usable_s())

    def over(self, learner: Learner) -> bool:
        """Whether the last step has been made."""
        if self.first_step is None:
            self.first_step, self.steps_began = learner.step, self.elapsed_s
        if self.total_steps is not None:
            return learner.step >= self.total_steps
        return learner.step > 0 and self.elapsed_s + self._step_s(learner) > self._usable_s()

    def seconds_left(self, learner: Learner) -> float | None:
        """Seconds that the training will probably still take; None before anything is known."""
        if self.total_steps is None:
            return max(0.0, float(self.plan.budget_s or 0) - self.elapsed_s)
        made = learner.step - (self.first_step or 0)
        if made < 1:
            return None
        return (self.elapsed_s - self.steps_began) / made * (self.total_steps - learner.step)

    def time_to_validate(self, learner: Learner) -> bool:
        """Whether a validation is due: after each so many rounds, within its share of a time budget."""
        if learner.step % self.plan.steps_per_epoch or learner.validated_step == learner.step:
            return False
        if self.total_steps is not None:
            return learner.epoch % self.plan.validate_every == 0
        share = (self.validating_s + self.longest_validation_s) / max(1.0, self.elapsed_s - self.before_s)
        return learner.epoch % self.plan.validate_every == 0 and share < VALIDATION_SHARE

    def validation_took(self, seconds: float) -> None:
        """Remember what a validation cost."""
        self.validating_s += seconds
        self.longest_validation_s = max(self.longest_validation_s, seconds)

    def rest(self, done: int, total: int) -> float | None:
        """Seconds left of the preparation, from its pace so far."""
        spent = time.monotonic() - self.began
        return spent / done * (total - done) if done else None

    def _usable_s(self) -> float:
        # The last validation and the writing of the model belong into the budget.
        budget = float(self.plan.budget_s or 0)
        return max(0.5 * budget, budget - 1.1 * self.longest_validation_s - 1.0)

    def _step_s(self, learner: Learner) -> float:
        made = learner.step - (self.first_step or 0)
        return (self.elapsed_s - self.steps_began) / made if made else 0.0
