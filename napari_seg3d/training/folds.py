"""Cross-validation: the folds are trained one after the other, and every case is judged by a model that did not see it.

Each fold is an ordinary training in a run folder of its own, so all that holds for a run holds for a fold: it can be
stopped, killed, resumed, predicted with. See `cross_validation` for the record above them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..cases.case import Case, CaseFiles
from ..errors import DatasetError, FileError, TrainingError
from ..events import EpochDone, Event, Failed, Finished, Progress, RunBegan, Saved, Step, job
from ..model.plan import Plan
from ..volumes.atomic import write_text_whole
from .cross_validation import (
    CrossValidation,
    divide,
    fold_folder,
    is_cross_validation,
    read_cross_validation,
    with_judgements,
    write_cross_validation,
)
from .loop import resume, train
from .run import PLAN, RUN, RunFolder, relative
from .torchrun import ranks_here

Source = Case | CaseFiles


@job
def train_fold(
    plan: Plan,
    cases: Sequence[Source],
    output: Path,
    *,
    folds: int,
    fold: int,
    start: Path | None = None,
    test_ids: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    dataset: str = "",
) -> Iterator[Event]:
    """Train one fold as an ordinary run: `cases` are divided by the plan's seed, and those of the fold judge it.

    Parameters
    ----------
    plan, output, start, test_ids, device, threads, dataset
        As in `napari_seg3d.training.loop.train`.
    cases : sequence of Case or CaseFiles
        All cases of the cross-validation.
    folds, fold : int
        How many there are, and which one, from 1.

    Yields
    ------
    Event
        As `train`.
    """
    labelled = _labelled(cases)
    divided = divide(_patients(labelled), folds, plan.seed)
    if not 1 <= fold <= folds:
        raise DatasetError(f"Expected a fold from 1 to {folds}, got {fold}.")
    record = CrossValidation(dataset, plan.seed, divided, test_ids=tuple(test_ids))
    yield from _new_fold(plan, labelled, Path(output), record, fold, start, device, threads)


@job
def cross_validate(
    plan: Plan,
    cases: Sequence[Source],
    output: Path,
    *,
    folds: int = 5,
    start: Path | None = None,
    test_ids: Sequence[str] = (),
    device: str = "auto",
    threads: int | None = None,
    dataset: str = "",
) -> Iterator[Event]:
    """Train all folds, one after the other, into ``<output>/fold1`` …; a budget in the plan is for each of them.

    Parameters
    ----------
    plan, start, test_ids, device, threads, dataset
        As in `napari_seg3d.training.loop.train`. Cases are divided by the plan's seed.
    cases : sequence of Case or CaseFiles
        Each labelled one judges exactly one fold; patients stay together.
    output : Path
        The folder to make; must not exist or be empty.
    folds : int

    Yields
    ------
    Event
        RunBegan before the events of each fold, without its end; at the end Finished with `output`, where
        ``cross_validation.json`` then holds the Dice of every case, or Failed.
    """
    output = Path(output)
    _alone()
    if output.is_dir() and any(output.iterdir()):
        raise FileError(f"The folder {output} is not empty. Go on with what is in it, or choose another folder.")
    divided = divide(_patients(_labelled(cases)), folds, plan.seed)
    came_from = None if start is None else relative(start, output)
    record = CrossValidation(dataset, plan.seed, divided, came_from, tuple(test_ids))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {output} cannot be made: {error.strerror or error}.") from None
    write_text_whole(output / PLAN, plan.to_json())
    # The record comes last: where it is, the cross-validation can go on.
    write_cross_validation(output, record)
    yield from _all_folds(output, record, plan, cases, device, threads)


@job
def resume_cross_validation(
    output: Path, cases: Sequence[Source], *, device: str = "auto", threads: int | None = None
) -> Iterator[Event]:
    """Go on with a cross-validation: finished folds are left alone, a begun one resumes, missing ones start.

    Folds that were trained one by one with `train_fold`, for example on several machines, are put together as well, as
    ``<output>/fold1`` ….

    Parameters
    ----------
    output : Path
        Its folder.
    cases : sequence of Case or CaseFiles
        The dataset; the cases of the cross-validation are picked by their ids.

    Yields
    ------
    Event
        As `cross_validate`.
    """
    output = Path(output)
    _alone()
    if not is_cross_validation(output):
        _gather(output, cases)
    record = read_cross_validation(output)
    plan = Plan.from_json((output / PLAN).read_text("utf-8"))
    wanted = {case_id for ids in record.divided for case_id in ids}
    by_id = {case.id: case for case in cases if case.id in wanted}
    if missing := sorted(wanted - by_id.keys()):
        raise DatasetError(
            f"The cross-validation was begun with cases that are not in this dataset: {', '.join(missing[:5])}. "
            "Open the right one."
        )
    yield from _all_folds(output, record, plan, list(by_id.values()), device, threads)


def _all_folds(
    output: Path,
    record: CrossValidation,
    plan: Plan,
    cases: Sequence[Source],
    device: str,
    threads: int | None,
) -> Iterator[Event]:
    began = time.monotonic()
    start = None if record.start is None else output / record.start
    labelled = _labelled(cases)
    for fold in range(1, record.folds + 1):
        run = fold_folder(output, fold)
        if _state(run) == "finished":
            continue
        what = f"Fold {fold} of {record.folds}"
        yield RunBegan(run, what)
        yield Progress(what, fold - 1, record.folds)
        if _state(run) is None:
            # A place that is told as seen from this folder is told as seen from that of the fold.
            there = (output / record.dataset).exists() and not Path(record.dataset).is_absolute()
            seen = replace(record, dataset=relative(output / record.dataset, run)) if there else record
            events = _new_fold(plan, labelled, run, seen, fold, start, device, threads)
        else:
            events = resume(run, labelled, device=device, threads=threads)
        with closing(_generator(events)) as inner:
            for event in inner:
                if isinstance(event, Failed):
                    yield Failed(f"{what}: {event.message}", event.details)
                    return
                if not isinstance(event, Finished):
                    yield _in_the_whole(event, what, record.folds - fold)
    record = with_judgements(output, record)
    yield Saved(write_cross_validation(output, record), "cross-validation")
    mean, seconds = record.mean_dice, time.monotonic() - began
    yield Finished(
        output,
        f"Cross-validated {mean.n} cases in {record.folds} folds: mean Dice {mean} (standard deviation over cases).",
        seconds,
    )


def _new_fold(
    plan: Plan,
    cases: Sequence[Source],
    output: Path,
    record: CrossValidation,
    fold: int,
    start: Path | None,
    device: str,
    threads: int | None,
) -> Iterator[Event]:
    if (output / PLAN).is_file() and not (output / RUN).is_file():
        # Killed while its folder was being made: nothing has been learned in it.
        (output / PLAN).unlink()
    judges = set(record.divided[fold - 1])
    events = train(
        plan,
        [case for case in cases if case.id not in judges],
        output,
        validation=[case for case in cases if case.id in judges],
        start=start,
        test_ids=record.test_ids,
        device=device,
        threads=threads,
        dataset=record.dataset,
    )
    # Of several processes that train together, the first writes.
    noted = ranks_here()[0] > 0
    with closing(_generator(events)) as inner:
        for event in inner:
            if not noted and (output / RUN).is_file():
                run = RunFolder(output)
                run.write_facts(replace(run.facts(), folds=record.folds, fold=fold))
                noted = True
            yield event


def _in_the_whole(event: Event, what: str, folds_left: int) -> Event:
    """Return an event of a fold as one of the whole work: it says which fold, and counts the folds that follow."""
    if isinstance(event, Progress):
        return replace(event, what=f"{what}: {event.what}")
    if isinstance(event, Step | EpochDone) and event.seconds_left is not None:
        # Every fold takes about as long as this one.
        return replace(event, seconds_left=event.seconds_left + folds_left * (event.elapsed_s + event.seconds_left))
    return event


def _alone() -> None:
    if ranks_here()[1] > 1:
        raise TrainingError(
            "Several processes train one fold together, not all of them. Train each fold with --fold, then put them "
            "together on one process with --folds --resume."
        )


def _gather(output: Path, cases: Sequence[Source]) -> None:
    """Write the record above folds that were trained one by one."""
    runs = [RunFolder.open(path) for path in sorted(output.glob("fold*")) if (path / RUN).is_file()]
    facts = [(run, found) for run in runs if (found := run.facts()).folds is not None]
    if not facts:
        raise FileError(f"Expected a cross-validation in {output}, or folds that were trained as {output / 'fold1'} ….")
    first, known = facts[0]
    ids = {*known.train_ids, *known.validation_ids}
    patients = {case_id: patient for case_id, patient in _patients(cases).items() if case_id in ids}
    divided = divide(patients, known.folds or 0, first.plan.seed)
    for run, found in facts:
        right = run.folder == fold_folder(output, found.fold or 0) and found.folds == known.folds
        if not right or set(found.validation_ids) != set(divided[(found.fold or 0) - 1]) or run.plan != first.plan:
            raise FileError(
                f"The runs in {output} are not folds of one cross-validation: {run.folder.name} is fold {found.fold} "
                f"of {found.folds}, or has another plan or other cases than {first.folder.name}. Leave it out."
            )
    if known.start_model is not None and len(facts) < len(divided):
        raise FileError(
            f"The folds in {output} started from another model, so the missing ones cannot be begun from here. Train "
            "each of them with --fold and --from."
        )
    write_text_whole(output / PLAN, first.plan.to_json())
    write_cross_validation(output, CrossValidation(known.dataset, first.plan.seed, divided, None, known.test_ids))


def _state(run: Path) -> str | None:
    """Return the state of a run as its folder tells it; None if it has not begun."""
    return RunFolder.open(run).facts().state if (run / RUN).is_file() else None


def _labelled(cases: Sequence[Source]) -> list[Source]:
    return [case for case in cases if (case.truth if isinstance(case, Case) else case.best_truth) is not None]


def _patients(cases: Sequence[Source]) -> dict[str, str]:
    """Return the patient of each case; one in memory is known by what it was read from."""
    found: dict[str, str] = {}
    for case in cases:
        files = case.files if isinstance(case, Case) else case
        found[case.id] = "" if files is None else files.patient
    return found


def _generator(events: Iterator[Event]) -> Any:
    # A job is a generator; its type says iterator.
    return events
