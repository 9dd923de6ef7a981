"""``learn``: train a model on with what was corrected, and keep it only if it is better."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import PlanError
from .commands import print_json
from .terminal import Terminal, follow

if TYPE_CHECKING:
    from ..cases.dataset import Dataset
    from ..training.lesson import Lesson

#: Time for the training where the user gives none.
BUDGET_S = 300.0


def show(arguments: argparse.Namespace, terminal: Terminal, dataset: Dataset) -> int:
    """Learn from the checked cases of a dataset and print how the new model compares with the old one."""
    from ..correction.queue import checked_cases
    from ..training.learning import learn_from_corrections
    from ..training.run import relative

    if arguments.corrections is None:
        terminal.note("No --corrections are given: every truth of the dataset counts as checked.")
    cases = dataset.labelled if arguments.corrections is None else checked_cases(dataset.cases, arguments.corrections)
    if arguments.epochs is not None and arguments.epochs < 1:
        raise PlanError(f"Expected at least one epoch, got {arguments.epochs}.")
    budget_s = BUDGET_S if arguments.budget is None and arguments.epochs is None else arguments.budget
    finished = follow(
        learn_from_corrections(
            arguments.start,
            cases,
            arguments.output,
            held_out=arguments.held_out,
            budget_s=budget_s,
            epochs=arguments.epochs,
            device=arguments.device,
            threads=arguments.threads,
            dataset=relative(dataset.root, arguments.output),
        ),
        terminal,
    )
    lesson: Lesson = finished.result
    if arguments.json:
        print_json({"run": None if lesson.run is None else str(lesson.run), **lesson.as_json()})
        return 0
    print("\n".join(lesson.as_lines()))
    print(lesson.summary())
    if lesson.run is not None:
        print(lesson.run)
    return 0
