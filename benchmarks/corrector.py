"""What "learn from corrections" saves: a simulated corrector labels 40 cases three ways.

Promise: with the loop, the corrector changes at most half as many voxels as with a fixed model until all cases have a
mean Dice of 0.90 to their truth.

- **loop**: a model learns from three corrected cases. It predicts the others, the case of which it is least certain is
  corrected next, and after every few cases it learns from what has been corrected so far (`learn_from_corrections`: a
  part is held out, and the new model is kept only if it is better).
- **fixed**: the same first model predicts all cases, and never learns again.
- **scratch**: every case is drawn from nothing.

The corrector (`napari_seg3d.correction.simulated`) makes one slice after the other equal to the truth, the worst first,
until the case is good enough. Counted are the voxels that it changes and the slices that it touches; the three cases at
the beginning are drawn completely and are the same for all.

    python benchmarks/corrector.py DATA [--goal 0.9] [--first 5m] [--round 2m] [--every 4] [--threads 2] [--output DIR]

DATA is the folder Task04_Hippocampus with its `benchmark_split.json`, of whose list `train` the first 40 are taken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from machine import describe
from processor_clock import count_processor_time

from napari_seg3d import open_dataset, result_of
from napari_seg3d.cases.case import Case, CaseFiles
from napari_seg3d.cases.dataset import read_split
from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.cli import seconds_of
from napari_seg3d.correction.simulated import Simulated, correct_until
from napari_seg3d.events import Finished, Warned
from napari_seg3d.model.planner import make_plan
from napari_seg3d.prediction.predict import Prediction, predict
from napari_seg3d.training.learning import Lesson, learn_from_corrections
from napari_seg3d.training.loop import train

CASES, FIRST = 40, 3
OF_FIXED = 0.5


@dataclass
class Effort:
    """What one way has cost, case by case in the order of the work."""

    name: str
    voxels: list[int] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)

    def add(self, done: Simulated) -> None:
        """Count a corrected case."""
        self.voxels.append(done.voxels)
        self.slices.append(len(done.slices))
        self.dice.append(done.dice_before)

    def line(self, of: Effort) -> str:
        """Return the line of the table."""
        voxels, slices = sum(self.voxels), sum(self.slices)
        parts = (
            f"{voxels:,} ({voxels / max(1, sum(of.voxels)):.2f})",
            f"{slices} ({slices / max(1, sum(of.slices)):.2f})",
            f"{np.mean(self.dice):.3f}",
            f"{np.mean(self.dice[: len(self.dice) // 2]):.3f} / {np.mean(self.dice[len(self.dice) // 2 :]):.3f}",
            f"{sum(slices == 0 for slices in self.slices)}",
        )
        return f"| {self.name} | {' | '.join(parts)} |"


def main() -> int:
    """Simulate all three; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--goal", type=float, default=0.9)
    parser.add_argument("--first", type=seconds_of, default=300.0, help="time for the first model")
    parser.add_argument("--round", type=seconds_of, default=200.0, help="time for each round of learning")
    parser.add_argument("--every", type=int, default=4, help="corrected cases between two rounds")
    parser.add_argument("--rate", type=float, default=1.0, help="learning rate of a round, as a part of the plan's")
    parser.add_argument("--order", choices=("least-certain", "most-certain", "name"), default="least-certain")
    parser.add_argument(
        "--whole", action="store_true", help="mark whole cases as checked, not only the slices that are right"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="where models go; default: a temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--processor-time", action="store_true", help="budgets are processor time, not time by the clock"
    )
    choices = parser.parse_args()
    if choices.processor_time:
        count_processor_time()
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="corrector-") as folder:
        simulation = Simulation(choices, choices.output or Path(folder))
        fixed, scratch, loop = simulation.fixed(), simulation.scratch(), simulation.loop()
    print(
        f"\nUntil {CASES - FIRST} cases reach a mean Dice of {choices.goal}; ratios to the fixed model in brackets:\n"
    )
    print("| way | voxels changed | slices touched | Dice as predicted | first half / second half | untouched |")
    print("|---|---|---|---|---|---|")
    for effort in (scratch, fixed, loop):
        print(effort.line(fixed))
    ratio = sum(loop.voxels) / sum(fixed.voxels)
    print("yes" if ratio <= OF_FIXED else "NO ", f"the loop needs at most {OF_FIXED} of the fixed model ({ratio:.2f})")
    return int(ratio > OF_FIXED)


class Simulation:
    """The cases, the first model, and the three ways of correcting."""

    def __init__(self, choices: argparse.Namespace, folder: Path) -> None:
        self.choices, self.folder = choices, folder
        data = choices.data
        files = read_split(data / "benchmark_split.json", open_dataset(data)).train[:CASES]
        cases = [one.load() for one in files]
        self.begun: list[Case] = cases[:FIRST]
        self.to_do: list[Case] = cases[FIRST:]
        self.values = tuple(files[0].table.values)
        self.first = self._first_model(files[:FIRST])

    def _first_model(self, files: Sequence[CaseFiles]) -> Path:
        choices, run = self.choices, self.folder / "first"
        plan = make_plan(result_of(fingerprint(files)), device="cpu", budget_s=choices.first, seed=choices.seed)
        if not run.exists():
            said(train(plan, self.begun, run, device="cpu", threads=choices.threads))
        return run

    def scratch(self) -> Effort:
        """Draw every case from nothing."""
        effort = Effort("from scratch")
        for case in self.to_do:
            effort.add(self._corrected(case, np.zeros_like(case.truth.data)))
        return effort

    def fixed(self) -> Effort:
        """Correct what the first model predicts."""
        effort = Effort("fixed model")
        for case in self.to_do:
            effort.add(self._corrected(case, self._predicted(case, self.first).label_map.data))
        return effort

    def loop(self) -> Effort:
        """Correct and learn in turns."""
        choices = self.choices
        effort, model, checked, left = Effort("loop"), self.first, list(self.begun), list(self.to_do)
        while left:
            doubts = {case.id: self._predicted(case, model) for case in left}
            sign = {"least-certain": -1, "most-certain": 1, "name": 0}[choices.order]
            left.sort(key=lambda case, doubts=doubts: sign * doubt(doubts[case.id]))
            for case in left[: choices.every]:
                done = self._corrected(case, doubts[case.id].label_map.data)
                effort.add(done)
                boxes = None if choices.whole else done.boxes
                if boxes is None or boxes:
                    checked.append(replace(case, truth=case.truth.with_data(done.data), checked=boxes))
            left = left[choices.every :]
            if left:
                model = self._learned(model, checked)
            print(f"{len(self.to_do) - len(left)} corrected, voxels {sum(effort.voxels)}, {model.name}", flush=True)
        return effort

    def _learned(self, model: Path, checked: Sequence[Case]) -> Path:
        choices = self.choices
        output = self.folder / f"after{len(checked)}"
        lesson: Lesson = said(
            learn_from_corrections(
                model, checked, output, budget_s=choices.round, rate=choices.rate, device="cpu", threads=choices.threads
            )
        )
        return lesson.run or model

    def _predicted(self, case: Case, model: Path) -> Prediction:
        return result_of(predict(case, model, device="cpu", threads=self.choices.threads, uncertainty=True))

    def _corrected(self, case: Case, predicted: np.ndarray) -> Simulated:
        return correct_until(predicted, case.truth.data, self.values, goal=self.choices.goal)


def doubt(prediction: Prediction) -> float:
    """Return how uncertain a prediction is: its uncertainty by the size of what it found."""
    values = prediction.uncertainty.data
    found = np.count_nonzero(prediction.label_map.data)
    return float(values[values > 0.1].sum()) / max(1, found)


def said(events: object) -> object:
    """Run a job, print how it ended and what it warned of, and return its result."""
    began = time.monotonic()

    def heard():
        for event in events:
            if isinstance(event, Warned | Finished):
                print(f"  {event.message} ({time.monotonic() - began:.0f} s)", flush=True)
            yield event

    return result_of(heard())


if __name__ == "__main__":
    sys.exit(main())
