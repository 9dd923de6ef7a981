"""Validation: whole cases are predicted on their own grids, scored, and the best model is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..cases.case import Case
from ..comparison.overlap import overlap
from ..events import Event, Progress, Saved, Validated
from ..model.checkpoint import MODEL_FILE, save_model
from ..model.device import is_out_of_memory
from ..model.plan import Plan
from ..model.prepare import restore, unknown_voxels
from ..prediction.window import predict_windows
from ..volumes.files import write_label_map
from ..volumes.volume import LabelMap
from .cache import StoredCase
from .clock import Clock
from .learner import Learner
from .losses import SegmentationLoss
from .run import LAST, RunFolder, now

Scores = dict[str, dict[str, float]]


def validate(run: RunFolder, learner: Learner, cases: Sequence[StoredCase], clock: Clock) -> Iterator[Event]:
    """Judge the model on whole cases, and keep it when it is the best so far.

    With several ranks each predicts its share of the cases.
    """
    began = time.monotonic()
    own: Scores = {}
    losses: list[float] = []
    ranks = learner.ranks
    learner.judged.eval()
    mine = cases[ranks.rank :: ranks.size]
    for number, case in enumerate(mine):
        yield from _score(run, learner, case, own, losses, (number, len(mine)))
    parts = ranks.gathered((own, losses))
    gathered = {name: scores for part, _ in parts for name, scores in part.items()}
    known = [loss for _, part in parts for loss in part]
    by_case = {case.id: gathered[case.id] for case in cases}
    dice = {name: float(np.mean([scores[name] for scores in by_case.values()])) for name in learner.plan.output_names}
    mean = float(np.mean(list(dice.values())))
    best = learner.scored(mean)
    if best and ranks.first:
        save_model(run.folder / MODEL_FILE, learner.model(_history(learner, dice)))
    clock.validation_took(time.monotonic() - began)
    loss = float(np.mean(known)) if len(known) == len(cases) else None
    yield Validated(learner.epoch, learner.step, dice, mean, by_case, best, clock.elapsed_s, loss)
    if best:
        yield Saved(run.folder / MODEL_FILE, "model")


def save_newest(run: RunFolder, learner: Learner) -> Iterator[Event]:
    """Write the newest model; it is also the model to predict with as long as there is no validated one."""
    if not learner.ranks.first:
        return
    model = learner.model(_history(learner, None))
    save_model(run.folder / LAST, model)
    yield Saved(run.folder / LAST, "newest model")
    if learner.best_dice < 0:
        save_model(run.folder / MODEL_FILE, model)
        yield Saved(run.folder / MODEL_FILE, "model")


def _score(
    run: RunFolder,
    learner: Learner,
    stored: StoredCase,
    scores: Scores,
    losses: list[float],
    place: tuple[int, int],
) -> Iterator[Event]:
    plan = learner.plan
    image = torch.from_numpy(stored.image().astype(np.float32))
    windows = predict_windows(learner.judged, image, plan.patch_voxels, plan.window_overlap, learner.device)
    for done, total, logits in windows:
        yield Progress("Validating", place[0] + done / total, place[1])
        if logits is not None:
            if (loss := _loss(learner, logits, stored)) is not None:
                losses.append(loss)
            predicted = restore(logits, stored.grid, plan)
    case = stored.source.load()
    assert case.truth is not None  # only labelled cases are validated
    scores[stored.id] = dice_where_known(predicted, case, case.truth, plan)
    folder = run.folder / "validation"
    folder.mkdir(exist_ok=True)
    label_map = LabelMap(predicted, stored.grid.case, plan.label_table, stored.id)
    write_label_map(folder / f"{stored.id}.nii.gz", label_map, overwrite=True, like=case.truth.source)


def _loss(learner: Learner, logits: Tensor, stored: StoredCase) -> float | None:
    """Return the loss of a whole case on the network's grid; None where the memory is too small for it."""
    for device in dict.fromkeys((logits.device, torch.device("cpu"))):
        try:
            # One alone, not the learner's: ranks have cases of their own, and a step's Dice is not to be replaced.
            loss = SegmentationLoss(learner.plan).to(device)
            with torch.inference_mode():
                target = torch.from_numpy(stored.target())[None, None].to(device)
                return float(loss(logits[None].to(device), target))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    return None


def dice_where_known(
    predicted: NDArray[np.unsignedinteger], case: Case, truth: LabelMap, plan: Plan
) -> dict[str, float]:
    """Return the Dice of each of the plan's outputs, within what a person has checked and the truth tells.

    Parameters
    ----------
    predicted : (X, Y, Z) integer ndarray
        Label values on the case's own grid.
    case : Case
        Whose `checked` boxes count.
    truth : LabelMap
    plan : Plan
    """
    true: NDArray[Any] = truth.data
    if (unknown := unknown_voxels(case, plan)) is not None:
        predicted, true = np.where(unknown, 0, predicted), np.where(unknown, 0, true)
    return {score.name: score.dice for score in overlap(predicted, true, plan.scored)}


def _history(learner: Learner, dice: dict[str, float] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"epoch": learner.epoch, "step": learner.step, "elapsed_s": round(learner.elapsed_s, 1)}
    return facts if dice is None else {**facts, "validation_dice": dice, "date": now()}
