"""Training: cases in, a model out, with events on the way.

Read `_learn` from top to bottom: it is the order in which things happen. Closing the generator stops a training at any
event; its ``finally`` saves, so that `resume` goes on at the very next step. With a number of epochs the weights after
a resume are those of an uninterrupted run, bit for bit on a CPU with as many threads; with a time budget the length
and the learning rate follow the clock.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..cases.case import Case, CaseFiles
from ..errors import DatasetError, TrainingError
from ..events import EpochDone, Event, Finished, Progress, Saved, Step, Validated, Warned, job
from ..model.checkpoint import Model, load_model, read_facts
from ..model.device import choose_device, device_name, give_back_memory, is_out_of_memory, keeping_memory, memory_mb
from ..model.plan import Plan
from ..model.planner import smaller
from .adversarial import AdversarialLearner, Judge
from .batches import Supply
from .cache import PreparedCache, StoredCase
from .clock import Clock
from .learner import Learner, Made
from .patches import Pool, labelled
from .ranks import Ranks, joined
from .run import RunFacts, RunFolder, learned_by, now, versions
from .torchrun import ranks_here
from .tracking import TensorBoard
from .validation import save_newest, validate

#: Seconds between two checkpoints within a long round.
CHECKPOINT_EVERY_S = 120.0
#: Learning rate of a run that is gone on with, as a part of the planned one: what it knows shall stay.
RATE_OF_GOING_ON = 1 / 3

Source = Case | CaseFiles


@job
def train(
    plan: Plan,
    cases: Sequence[Source],
    output: Path,
    *,
    validation: Sequence[Source] = (),
    start: Path | None = None,
    older: Sequence[Source] = (),
    test_ids: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    dataset: str = "",
    older_dataset: str = "",
    discriminator: Judge | None = None,
) -> Iterator[Event]:
    """Train a network.

    Under ``torchrun`` all its processes train this one model together; the first of them writes.

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
    older : sequence of Case or CaseFiles
        Cases that the start model was trained on: a share of the patches is cut from them, so that it does not forget.
    test_ids : sequence of str
        Cases that the model will be tested on: noted, so that nobody adds them to the run later.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    threads : int, optional
        Threads on the CPU; by default torch's choice.
    dataset, older_dataset : str
        Where the cases come from, for the record.
    discriminator : callable, optional
        Plan -> Module; another discriminator than the plan's ``adversarial`` names. The module maps image and mask
        (B, images + outputs, X, Y, Z) to a map of scores.

    Yields
    ------
    Event
        Progress, Step, EpochDone, Validated, Saved, Warned; at the end Finished with the run folder, or Failed.
    """
    began = time.monotonic()
    _check_judge(plan, discriminator)
    chosen = _computing_device(device, threads)
    training = list(labelled(cases))
    validation = [] if not validation else list(labelled(validation))
    older = [] if not older else list(labelled(older))
    for first, second, what in ((training, validation, "training and validation"), (validation, older, "validation and "
                                "older cases"), (training, older, "training and older cases")):  # fmt: skip
        if both := {c.id for c in first} & {c.id for c in second}:
            raise DatasetError(f"The cases {', '.join(sorted(both))} are in both {what}; choose one.")
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
        older_dataset=older_dataset,
        older_ids=tuple(c.id for c in older),
        test_ids=tuple(test_ids),
        earlier_ids=() if start is None else _earlier(Path(start)),
    )
    with joined(chosen, plan.batch_size) as ranks:
        output = Path(output)
        run = RunFolder.create(output, plan, facts) if ranks.first else RunFolder(output)
        ranks.wait()
        task = _Task(run, plan, training, validation, older, chosen, ranks, began, facts, discriminator, start=model)
        yield from _recorded(task, _learn(task))


@job
def resume(
    output: Path,
    cases: Sequence[Source],
    *,
    older: Sequence[Source] = (),
    more_s: float | None = None,
    more_epochs: int | None = None,
    add: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    discriminator: Judge | None = None,
) -> Iterator[Event]:
    """Go on with a training: one that was stopped, killed or failed, or a finished one that gets more time or cases.

    Parameters
    ----------
    output : Path
        Its run folder.
    cases : sequence of Case or CaseFiles
        The dataset; the run's own cases are picked by their ids. Truths that were corrected since are learned anew.
    older : sequence of Case or CaseFiles
        The older dataset, if the run mixes one in.
    more_s, more_epochs : float, int, optional
        Time or rounds to add to the plan's; the one that the plan counts. The learning rate starts at a third of the
        planned one and falls again.
    add : sequence of str
        Ids of cases to learn from besides the run's own.
    discriminator : callable, optional
        The one that was passed to `train`, if one was.

    Yields
    ------
    Event
        As `train`.
    """
    began = time.monotonic()
    run = RunFolder.open(Path(output))
    plan, facts = run.plan, run.facts()
    _check_judge(plan, discriminator)
    chosen = _computing_device(device, threads or facts.threads)
    if more_s or more_epochs or add:
        plan, facts = _gone_on(run, plan, facts, cases, more_s, more_epochs, add)
    if facts.start_model is not None and not run.checkpoint.is_file():
        raise TrainingError(
            f"The run in {run.folder} was killed before the model that it starts from was saved. Start it again, in a "
            "new folder."
        )
    training = _picked(facts.train_ids, cases, "")
    validation = _picked(facts.validation_ids, cases, "")
    mixed_in = _picked(facts.older_ids, older, "older ")
    facts = replace(facts, state="running", device=device_name(chosen), threads=torch.get_num_threads())
    with joined(chosen, plan.batch_size) as ranks:
        task = _Task(
            run, plan, training, validation, mixed_in, chosen, ranks, began, facts, discriminator, resuming=True
        )
        yield from _recorded(task, _learn(task))


@dataclass(frozen=True, eq=False)
class _Task:
    """What one session of a training works on."""

    run: RunFolder
    plan: Plan
    training: Sequence[Source]
    validation: Sequence[Source]
    older: Sequence[Source]
    device: torch.device
    ranks: Ranks
    began: float
    facts: RunFacts
    discriminator: Judge | None = None
    start: Model | None = None
    resuming: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """All cases: to learn from, to mix in, to judge by."""
        return (*self.training, *self.older, *self.validation)

    def learner(self) -> Learner:
        """Make what learns by this plan."""
        if self.plan.adversarial is None:
            return Learner(self.plan, self.device, self.ranks)
        return AdversarialLearner(self.plan, self.device, self.ranks, self.discriminator)


def _recorded(task: _Task, events: Generator[Event, None, None]) -> Iterator[Event]:
    """Pass events on, keep those that tell a run's story, and leave its state in `run.json`."""
    if not task.ranks.first:
        with closing(events), keeping_memory(task.device):
            yield from events
        return
    run, state = task.run, "stopped"
    board = TensorBoard(run)
    with run.locked(), keeping_memory(task.device):
        try:
            if task.resuming:
                run.write_plan(task.plan)
                run.write_facts(task.facts)
            for event in events:
                if isinstance(event, EpochDone | Validated | Warned):
                    run.record(event)
                if isinstance(event, EpochDone | Validated | Finished):
                    run.write_history()
                if isinstance(event, Finished):
                    state = "finished"
                trouble = board.add(event)
                yield event
                if trouble:
                    yield Warned(trouble)
        except Exception:
            state = "failed"
            raise
        finally:
            # Closing the inner generator first lets it save before the state is written.
            events.close()
            board.close()
            run.write_facts(replace(run.facts(), state=state))


def _learn(task: _Task) -> Generator[Event, None, None]:
    run, plan, device = task.run, task.plan, task.device
    learner = task.learner()
    clock = Clock(plan, task.began, task.facts.leg_step, task.facts.leg_s)
    whole = False  # whether the learner is between two steps, where its state may be saved
    try:
        if task.start is not None:
            for note in learner.start_from(task.start):
                yield Warned(f"Fine-tuning: {note}.")
            if task.ranks.first:
                learner.save(run)  # who resumes does not know where the start model lay
        elif task.resuming and run.checkpoint.is_file():
            learner.load(run)
            clock.before_s = learner.elapsed_s
            if learner.step == task.facts.leg_step:
                learner.validations_since_best = 0
        stored = yield from _prepared(task, clock)
        split = len(task.training), len(task.training) + len(task.older)
        pool = Pool(stored[: split[0]], stored[split[0] : split[1]])
        judged = stored[split[1] :]
        if not judged:
            yield Warned("There are no validation cases: the newest model is kept, and no Dice is known.")
        whole = True
        if learner.step:  # a stop may have come between the last step of a round and its validation
            yield from _end_of_round(run, learner, judged, clock)
        saved_at = time.monotonic()
        finished = False
        while not finished:
            # Once through, unless a full memory asks for smaller patches or the loss for going back.
            with closing(_supply(pool, learner).batches(learner.step)) as supply:
                while True:
                    progress, over = task.ranks.told(clock.progress(learner), clock.over(learner))
                    finished = bool(over) or learner.out_of_patience
                    if finished:
                        break
                    whole = False
                    steps = _one_step(learner, supply, progress)
                    whole = True
                    if steps is None:
                        yield Warned(_shrink(run, learner, clock))
                        break
                    learner.elapsed_s = clock.elapsed_s
                    yield from _steps(learner, steps, progress, clock)
                    if learner.diverged:
                        whole = False  # if there is nothing to go back to, this state must not replace a good one
                        back = learner.go_back(run)
                        whole = True
                        yield Warned(back)
                        break
                    round_is_over = learner.step % plan.steps_per_epoch == 0
                    yield from _end_of_round(run, learner, judged, clock)
                    if round_is_over or time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                        saved_at = time.monotonic()
                        if learner.healthy and task.ranks.first:
                            learner.save(run)
                            yield Saved(run.checkpoint, "checkpoint")
        yield from _steps(learner, learner.wait(), clock.progress(learner), clock)
        if learner.epoch_losses:
            yield _round(learner, clock)
        if judged and learner.validated_step != learner.step:
            yield from validate(run, learner, judged, clock)
        learner.elapsed_s = clock.elapsed_s
        yield from save_newest(run, learner)
        if task.ranks.first:
            learner.save(run)
        whole = False
        yield Finished(run.folder, _summary(learner), clock.elapsed_s)
    finally:
        # A stop arrives here too, as GeneratorExit at one of the yields.
        if whole and learner.step and task.ranks.first:
            learner.wait()
            learner.save(run)
            for _ in save_newest(run, learner):
                pass
        give_back_memory(device)


def _prepared(task: _Task, clock: Clock) -> Generator[Event, None, list[StoredCase]]:
    """Prepare all cases, or find them prepared; with several ranks each makes its share first."""
    cache, ranks, sources = PreparedCache(), task.ranks, task.sources
    if ranks.size > 1:
        for source in sources[ranks.rank :: ranks.size]:
            cache.case(source, task.plan)
        ranks.wait()
    stored = []
    for number, source in enumerate(sources):
        yield Progress("Preparing cases", number, len(sources), clock.rest(number, len(sources)))
        stored.append(cache.case(source, task.plan))
    yield Progress("Preparing cases", len(sources), len(sources), 0.0)
    if ranks.first:
        cache.trim()
    return stored


def _supply(pool: Pool, learner: Learner) -> Supply:
    return Supply(pool, learner.plan, learner.device, rank=learner.ranks.rank, ranks=learner.ranks.size)


def _one_step(
    learner: Learner, supply: Iterator[tuple[torch.Tensor, torch.Tensor]], progress: float
) -> list[Made] | None:
    """Make a step; None when the device's memory was too small for it."""
    try:
        return learner.learn(next(supply), progress)
    except (MemoryError, RuntimeError) as error:
        if learner.ranks.size > 1 or not is_out_of_memory(error):
            raise
    # Only here, behind the except block, is nothing of the failed step held any more.
    return None


def _shrink(run: RunFolder, learner: Learner, clock: Clock) -> str:
    """Go on with a smaller batch or patch; tell in words."""
    plan = smaller(learner.plan)
    if plan is None:
        raise TrainingError(
            "The memory is too small for this network, even with one small patch at a time. Close other programs, or "
            "choose a network with fewer feature maps."
        )
    before = learner.plan
    learner.change_plan(plan)
    clock.plan = plan
    run.write_plan(plan)
    gc.collect()
    give_back_memory(learner.device)
    return f"The memory is full: going on with {_patches(plan)} voxels a step instead of {_patches(before)}."


def _patches(plan: Plan) -> str:
    return f"{plan.batch_size} patch{'es' * (plan.batch_size > 1)} of {' × '.join(map(str, plan.patch_voxels))}"


def _steps(learner: Learner, steps: Sequence[Made], progress: float, clock: Clock) -> Iterator[Event]:
    rate, left = learner.learning_rate(progress), clock.seconds_left(learner)
    for made in steps:
        if made.loss is None:
            yield Warned(f"Step {made.step} was left out: its loss was not a finite number.")
        else:
            memory = memory_mb(learner.device)
            yield Step(made.step, learner.epoch, made.loss, rate, clock.elapsed_s, left, memory, made.details)


def _end_of_round(run: RunFolder, learner: Learner, judged: Sequence[StoredCase], clock: Clock) -> Iterator[Event]:
    if learner.step % learner.plan.steps_per_epoch:
        return
    yield from _steps(learner, learner.wait(), clock.progress(learner), clock)
    if learner.epoch_losses:
        yield _round(learner, clock)
    (due,) = learner.ranks.told(clock.time_to_validate(learner))
    if judged and due:
        yield from validate(run, learner, judged, clock)


def _round(learner: Learner, clock: Clock) -> EpochDone:
    means = learner.round_means()
    return EpochDone(
        learner.epoch,
        learner.plan.epochs,
        means.loss,
        learner.learning_rate(clock.progress(learner)),
        learner.step,
        clock.elapsed_s,
        clock.seconds_left(learner),
        means.dice,
        means.details,
    )


def _gone_on(
    run: RunFolder,
    plan: Plan,
    facts: RunFacts,
    cases: Sequence[Source],
    more_s: float | None,
    more_epochs: int | None,
    add: Sequence[str],
) -> tuple[Plan, RunFacts]:
    """Return plan and facts of a run that gets more time or cases: a new leg of its schedule begins."""
    if (more_s is None) == (more_epochs is None) or (plan.epochs is None) != (more_epochs is None):
        unit = "a time budget" if plan.epochs is None else "a number of epochs"
        raise TrainingError(f"This run counts {unit[2:]}: tell with {unit} how much longer it shall learn.")
    known = {*facts.train_ids, *facts.validation_ids}
    new = [name for name in dict.fromkeys(add) if name not in known]
    list(labelled(_picked(tuple(new), cases, "new "))) if new else []
    if not run.checkpoint.is_file():
        raise TrainingError(f"The run in {run.folder} has no checkpoint to go on from. Start a new run.")
    state = read_facts(run.checkpoint, "checkpoint")
    step, elapsed_s = int(state["step"]), float(state["elapsed_s"])
    rate = plan.learning_rate if facts.leg_step else plan.learning_rate * RATE_OF_GOING_ON
    length: dict[str, object] = (
        {"epochs": step // plan.steps_per_epoch + int(more_epochs or 0)}
        if plan.epochs
        else {"budget_s": elapsed_s + float(more_s or 0)}
    )
    facts = replace(facts, train_ids=(*facts.train_ids, *new), leg_step=step, leg_s=elapsed_s)
    return plan.changed({**length, "learning_rate": rate, "warmup_steps": 0}), facts


def _picked(ids: Sequence[str], cases: Sequence[Source], what: str) -> list[Source]:
    by_id = {case.id: case for case in cases}
    if missing := [name for name in ids if name not in by_id]:
        raise DatasetError(
            f"The run was made with {what}cases that are not in this dataset: {', '.join(missing[:5])}. "
            "Open the right one."
        )
    return [by_id[name] for name in ids]


def _earlier(start: Path) -> tuple[str, ...]:
    """Return the cases that a start model has learned from, in its own run and in those before it."""
    facts = learned_by(start)
    return () if facts is None else tuple(dict.fromkeys((*facts.train_ids, *facts.older_ids, *facts.earlier_ids)))


def _summary(learner: Learner) -> str:
    best = f", best mean Dice {learner.best_dice:.3f}" if learner.best_dice >= 0 else ""
    early = ", stopped early because no better model came" if learner.out_of_patience else ""
    return f"Trained {learner.step} steps in {learner.elapsed_s / 60:.1f} minutes{best}{early}."


def _check_judge(plan: Plan, discriminator: Judge | None) -> None:
    if discriminator is not None and plan.adversarial is None:
        raise TrainingError("A discriminator was given, but the plan trains without one: set plan.adversarial.")
    # The gate and the discriminator's own normalisation would have to be those of the whole batch.
    if plan.adversarial is not None and ranks_here()[1] > 1:
        raise TrainingError("A training against a discriminator runs in one process: start it without torchrun.")


def _computing_device(name: str, threads: int | None) -> torch.device:
    _, size, local = ranks_here()
    if size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{local}"
    device = choose_device(name)
    if threads is not None:
        torch.set_num_threads(threads)
    # Denormal numbers, which appear as activations die out, are some hundred times slower on a CPU.
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
