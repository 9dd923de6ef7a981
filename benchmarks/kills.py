"""Trainings killed with SIGKILL at random moments, resumed to their end, and compared with an uninterrupted one.

Promise: every killed training can be resumed, its final weights are those of the uninterrupted run, bit for bit, and no
more than the newest round is computed again.
A quarter of the moments lies in the preparing of the cases, a quarter in the writing of a weights file; the others lie
anywhere from the first step to the last line. Made-up studies, a small real network, one process a training.

    python benchmarks/kills.py [--kills 24] [--threads 1] [--seed 0] [--output DIR]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import describe

EPOCHS, STEPS_PER_EPOCH = 12, 5
CASES = 4  # the last one validates
CHANGES = {
    "network.widths": (4, 8, 16),
    "network.kernels": ((3, 3, 3),) * 3,
    "network.strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    "network.deep_supervision": True,
    "patch_voxels": (16, 16, 8),
    "batch_size": 2,
    "steps_per_epoch": STEPS_PER_EPOCH,
    "validate_every": 4,
    "ema_decay": 0.9,
}
#: A child that takes longer than this hangs.
LIMIT_S = 600.0
WHERE = ("while training", "while preparing", "while training", "while writing weights")
#: What a child tells: whether it has begun (1), its first and newest step, the seconds until the first.
BEGUN, FIRST_STEP, STEP, PREPARED_S = range(4)


def main() -> int:
    """Kill, resume, compare; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, help="where the runs go; default: a temporary folder")
    choices = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(choices.threads)
    print(describe())
    if choices.output is not None:
        return kill_and_compare(choices.output, choices)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        return kill_and_compare(Path(folder), choices)


def kill_and_compare(folder: Path, choices: argparse.Namespace) -> int:
    """Run everything in a folder; 1 if the promise is not kept."""
    begin = time.monotonic()
    make_study(folder)
    nursery = Nursery(folder, choices.threads)
    whole = nursery.training("whole")
    if not whole.run_to_end():
        raise RuntimeError("The uninterrupted training failed.")
    lasts_s, preparing_s = whole.seconds, whole.told[PREPARED_S]
    print(f"uninterrupted: {EPOCHS * STEPS_PER_EPOCH} steps in {lasts_s:.2f} s, of which {preparing_s:.2f} s preparing")

    rng = np.random.default_rng(choices.seed)
    resumed = identical = told_alike = most_again = 0
    for number in range(choices.kills):
        where = WHERE[number % len(WHERE)]
        # Spread over the whole length, and random within each part of it.
        share = (number + rng.random()) / choices.kills
        moment = preparing_s * share
        if where != "while preparing":
            # Weights must still be written after the moment at which the wait for them begins.
            moment = preparing_s + (lasts_s - preparing_s) * share * (0.8 if where == "while writing weights" else 1)
        training = nursery.training(f"killed_{number:02d}")
        state = training.kill(moment, at_weights=where == "while writing weights")
        reached = int(training.told[STEP])
        if not training.run_to_end():
            print(f"{number + 1:3d} {where:22s} {state}: NOT RESUMABLE")
            continue
        resumed += 1
        # A training that had finished makes no step.
        again = reached + 1 - int(training.told[FIRST_STEP]) if training.told[FIRST_STEP] else 0
        most_again = max(most_again, again)
        differing = list(differences(whole.run, training.run))
        identical += not differing
        told_alike += history(whole.run) == history(training.run)
        verdict = f"DIFFERS in {', '.join(differing[:3])}" if differing else "same"
        print(f"{number + 1:3d} {where:22s} {state}: {verdict}, {again} steps again")

    kills = choices.kills
    print(f"{time.monotonic() - begin:.0f} s; the same history (rounds and losses): {told_alike} of {kills}")
    print(f"steps computed again: {most_again} at most, of {STEPS_PER_EPOCH} in a round")
    kept = resumed == identical == kills and most_again <= STEPS_PER_EPOCH
    print(f"{'yes' if kept else 'NO '} {kills} kills: {resumed} resumed, {identical} with identical final weights")
    return int(not kept)


def make_study(folder: Path) -> None:
    """Write made-up cases and a plan."""
    from napari_seg3d import make_plan, open_dataset, result_of
    from napari_seg3d.cases.phantoms import write_phantom_dataset

    result_of(write_phantom_dataset(folder / "study", CASES, 5, shape=(40, 48, 20)))
    plan = make_plan(open_dataset(folder / "study"), epochs=EPOCHS, device="cpu", changes=CHANGES)
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")


class Nursery:
    """Where trainings come from: one server process loads torch once, each training is a fork of it."""

    def __init__(self, folder: Path, threads: int) -> None:
        self.folder, self.threads = folder, threads
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["__main__", "napari_seg3d.training.loop"])

    def training(self, name: str) -> Training:
        """Return a training that has not begun, with a cache of prepared cases of its own."""
        (self.folder / name).mkdir(parents=True)
        return Training(self, self.folder / name / "run", self.folder / name / "cache")


@dataclass
class Training:
    """One training in a child process."""

    nursery: Nursery
    run: Path
    cache: Path
    seconds: float = 0.0

    def start(self) -> multiprocessing.Process:
        """Start or resume it; returns once it has begun."""
        self.told = self.nursery.context.RawArray("d", 4)
        # Nothing to resume lies in a folder that was not even made.
        resuming = self.run.exists()
        arguments = (self.nursery.folder, self.run, self.cache, self.nursery.threads, resuming, self.told)
        child = self.nursery.context.Process(target=train_in_child, args=arguments)
        child.start()
        while child.is_alive() and not self.told[BEGUN]:
            time.sleep(0.0005)
        return child

    def run_to_end(self) -> bool:
        """Start or resume, and wait; whether it finished."""
        child = self.start()
        begin = time.monotonic()
        child.join(LIMIT_S)
        self.seconds = time.monotonic() - begin
        if child.is_alive():
            child.kill()
            child.join()
        return child.exitcode == 0 and json.loads((self.run / "run.json").read_text("utf-8"))["state"] == "finished"

    def kill(self, moment: float, *, at_weights: bool) -> str:
        """Start it and kill it after some seconds, or at the next writing of weights; return in words where it was."""
        child = self.start()
        end = time.monotonic() + moment
        while child.is_alive() and time.monotonic() < end:
            time.sleep(0.0005)
        while at_weights and child.is_alive() and not self.writes_weights():
            pass
        child.kill()
        child.join()
        if child.exitcode == 0:
            return f"{moment:5.2f} s, had finished"
        if not self.run.exists():
            return f"{moment:5.2f} s, before its folder was made"
        step = int(self.told[STEP])
        half_written = ", in the middle of writing weights" if self.writes_weights() else ""
        return f"{moment:5.2f} s, {f'step {step}' if step else 'preparing'}{half_written}"

    def writes_weights(self) -> bool:
        """Whether a weights file has been begun and not yet taken its place."""
        from napari_seg3d.volumes.atomic import PREFIX

        return self.run.is_dir() and any(
            name.startswith(PREFIX) and "safetensors" in name for name in os.listdir(self.run)
        )


def train_in_child(folder: Path, run: Path, cache: Path, threads: int, resuming: bool, told) -> None:
    """Train or resume in this process, and end it with status 1 if that fails."""
    os.environ["NAPARI_SEG3D_CACHE"] = str(cache)
    from napari_seg3d import open_dataset
    from napari_seg3d.events import Failed, Step
    from napari_seg3d.model.plan import Plan
    from napari_seg3d.training.loop import resume, train

    cases = open_dataset(folder / "study").labelled
    plan = Plan.from_json((folder / "plan.json").read_text("utf-8"))
    begin = time.monotonic()
    told[BEGUN] = 1
    if resuming:
        events = resume(run, cases, device="cpu", threads=threads)
    else:
        events = train(plan, cases[:-1], run, validation=cases[-1:], device="cpu", threads=threads)
    for event in events:
        if isinstance(event, Step):
            told[FIRST_STEP] = told[FIRST_STEP] or event.step
            told[STEP] = event.step
            told[PREPARED_S] = told[PREPARED_S] or time.monotonic() - begin
        elif isinstance(event, Failed):
            print(event.message, event.details, file=sys.stderr)
            sys.exit(1)


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield the names of tensors that differ between two runs: best model, newest model, checkpoint."""
    import torch
    from safetensors.torch import load_file

    names = sorted(path.name for path in one.glob("*.safetensors"))
    if not {"model.safetensors", "last.safetensors"} <= set(names):
        raise RuntimeError(f"The uninterrupted run has no weights, only {names}.")
    for name in names:
        if not (other / name).is_file():
            yield f"{name} (missing)"
            continue
        a, b = load_file(one / name), load_file(other / name)
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b or not torch.equal(a[key], b[key]):
                yield f"{name}:{key}"


def history(run: Path) -> list[tuple[object, ...]]:
    """Return what a run tells of its rounds and validations, without the times."""
    from napari_seg3d.events import EpochDone
    from napari_seg3d.training.run import read_history

    return [
        (event.epoch, event.steps, event.loss) if isinstance(event, EpochDone) else (event.epoch, event.mean_dice)
        for event in read_history(run)
    ]


if __name__ == "__main__":
    sys.exit(main())
