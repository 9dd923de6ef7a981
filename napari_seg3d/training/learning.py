"""Learning from corrections: a model is trained on with what was checked, and kept only if it has become better.

Some checked cases are held out. The model never learns from them, not in later rounds either; by them the new model is
compared with the old one, on whole cases and within what a person has checked. A model that is not better leaves no
trace, and the old one goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from ..cases.case import Case, CaseFiles
from ..errors import DatasetError, FileError, Seg3dError
from ..events import Event, Failed, Finished, Progress, Saved, job
from ..model.checkpoint import Model, load_model
from ..prediction.predict import predict
from ..volumes.atomic import write_text_whole
from .lesson import FEWEST_CASES, Lesson, choose_held_out, mean_dice
from .loop import train
from .patches import labelled
from .run import is_free, learned_by
from .validation import dice_where_known

Source = Case | CaseFiles

#: In the run folder of a model that was kept.
LESSON = "lesson.json"
#: A run that is still being judged lies in a hidden folder beside its place, named after the process.
_PREFIX = ".seg3d-learning-"


@job
def learn_from_corrections(
    model: Path,
    cases: Sequence[Source],
    output: Path,
    *,
    held_out: Sequence[str] | None = None,
    budget_s: float | None = None,
    epochs: int | None = None,
    rate: float = 1.0,
    device: str = "auto",
    threads: int | None = None,
    dataset: str = "",
) -> Iterator[Event]:
    """Train a model on with checked cases, and keep the result only if it is better on held-out ones.

    Parameters
    ----------
    model : Path
        Run folder or model file: the current model.
    cases : sequence of Case or CaseFiles
        Checked cases with their corrected truths; where only parts were checked (`Case.checked`), only these are
        learned from and judged by.
    output : Path
        Where the run folder of the new model goes, if it is better; nothing is there otherwise.
    held_out : sequence of str, optional
        Ids of the cases to judge by; by default `choose_held_out`.
    budget_s, epochs : float, int, optional
        How long to learn; one of them.
    rate : float
        Learning rate as a part of the one that the model was planned with. With a third of it, as when a run is gone on
        with, a model that had seen three cases gained less from 14 more (benchmarks/corrector.py).
    device, threads, dataset
        As in `napari_seg3d.training.loop.train`.

    Yields
    ------
    Event
        Those of `train` without its end; then Progress of the comparison; at the end Finished with a `Lesson`.
    """
    output = Path(output)
    if not is_free(output):
        raise FileError(f"The folder {output} is not empty. Choose another one for the new model.")
    old = load_model(model)
    known = list(labelled(cases))
    by_id = {case.id: case for case in known}
    if len(by_id) < FEWEST_CASES:
        raise DatasetError(
            f"Expected at least {FEWEST_CASES} checked cases to learn from and to judge by, found {len(by_id)}. "
            "Check a few more."
        )
    chosen = choose_held_out(known, learned_by(model)) if held_out is None else tuple(held_out)
    if missing := [name for name in chosen if name not in by_id]:
        raise DatasetError(f"The cases {', '.join(missing)} are to be held out, but they are not checked.")
    learning = [case for case in known if case.id not in chosen]
    judging = [by_id[name] for name in chosen]
    if not learning or not judging:
        raise DatasetError("At least one checked case must be held out, and one learned from.")
    length = {"budget_s": budget_s, "epochs": epochs}
    plan = old.plan.changed({**length, "learning_rate": old.plan.learning_rate * rate, "warmup_steps": 0})
    _sweep(output.parent)
    beside = output.parent / f"{_PREFIX}{os.getpid()}-{output.name}"
    try:
        events = train(
            plan, learning, beside, validation=judging, start=Path(model), device=device, threads=threads,
            dataset=dataset,
        )  # fmt: skip
        with closing(events):  # type: ignore[type-var]  # a job is a generator; its type says iterator
            for event in events:
                if isinstance(event, Failed):
                    yield event
                    return
                if not isinstance(event, Finished | Saved):
                    yield event
        new = load_model(beside)
        before = yield from _judge(old, judging, "Judging the old model", device, threads)
        after = yield from _judge(new, judging, "Judging the new model", device, threads)
        better = mean_dice(after) > mean_dice(before)
        lesson = Lesson(output if better else None, tuple(case.id for case in learning), before, after)
        if better:
            write_text_whole(beside / LESSON, json.dumps(lesson.as_json(), indent=1))
            _put_in_place(beside, output)
            yield Saved(output, "model")
        yield Finished(lesson, lesson.summary())
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _judge(
    model: Model, cases: Sequence[Source], title: str, device: str, threads: int | None
) -> Generator[Event, None, dict[str, dict[str, float]]]:
    """Return the Dice of a model on whole cases, where their truths are known."""
    scores: dict[str, dict[str, float]] = {}
    for number, source in enumerate(cases):
        yield Progress(title, number, len(cases))
        case = source.load()
        assert case.truth is not None  # only labelled cases are judged by
        for event in predict(case, model, device=device, threads=threads):
            if isinstance(event, Failed):
                raise Seg3dError(event.message)
            if isinstance(event, Finished):
                scores[case.id] = dice_where_known(event.result.label_map.data, case, case.truth, model.plan)
    return scores


def _put_in_place(beside: Path, output: Path) -> None:
    try:
        with suppress(FileNotFoundError):
            output.rmdir()
        os.replace(beside, output)
    except OSError as error:
        raise FileError(f"The run folder {output} cannot be made: {error.strerror or error}.") from None


def _sweep(folder: Path) -> None:
    """Remove what killed processes left of models that were still being judged."""
    for path in folder.glob(f"{_PREFIX}*"):
        process = path.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(path, ignore_errors=True)
