"""Cross-validation on the command line: all folds, one of them, or what is left of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PlanError
from .commands import print_json, print_run
from .terminal import Terminal, follow

if TYPE_CHECKING:
    from ..cases.case import CaseFiles
    from ..cases.dataset import Dataset
    from ..model.plan import Plan


def train_in_folds(
    arguments: argparse.Namespace, terminal: Terminal, plan: Plan, dataset: Dataset, cases: Sequence[CaseFiles]
) -> int:
    """``train --folds N``: all folds one after the other, or the one that ``--fold`` names."""
    from ..cases.dataset import read_split
    from ..training.folds import cross_validate, train_fold
    from ..training.run import relative

    if arguments.rehearse is not None:
        raise PlanError("Folds are trained without older cases mixed in. Leave out --rehearse.")
    chosen = {case.id for case in cases}
    in_order = [case for case in dataset.cases if case.id in chosen]
    where = relative(dataset.root, arguments.output)
    tests = () if arguments.split is None else read_split(arguments.split, dataset).test
    test_ids = [case.id for case in tests]
    device, threads, start = arguments.device, arguments.threads, arguments.start
    if arguments.fold is not None:
        terminal.note(f"Training fold {arguments.fold} of {arguments.folds} on {len(cases)} cases.")
        events = train_fold(
            plan, in_order, arguments.output, folds=arguments.folds, fold=arguments.fold, start=start,
            test_ids=test_ids, device=device, threads=threads, dataset=where,
        )  # fmt: skip
        finished = follow(events, terminal)
        print_run(arguments, finished.message, finished.seconds)
        return 0
    terminal.note(f"Cross-validating {len(cases)} cases in {arguments.folds} folds.")
    events = cross_validate(
        plan, in_order, arguments.output, folds=arguments.folds, start=start,
        test_ids=test_ids, device=device, threads=threads, dataset=where,
    )  # fmt: skip
    finished = follow(events, terminal)
    _print_folds(arguments, finished.message)
    return 0


def is_about_folds(arguments: argparse.Namespace) -> bool:
    """Whether ``train --resume`` is about a whole cross-validation, and not about one run."""
    from ..training.cross_validation import is_cross_validation

    return arguments.fold is None and (arguments.folds is not None or is_cross_validation(arguments.output))


def resume_in_folds(arguments: argparse.Namespace, terminal: Terminal, dataset: Dataset) -> int:
    """``train --resume`` of a cross-validation: finished folds are left alone."""
    from ..training.cross_validation import is_cross_validation, read_cross_validation
    from ..training.folds import resume_cross_validation

    output: Path = arguments.output
    if any(value is not None for value in (arguments.budget, arguments.epochs, arguments.add_cases)):
        raise PlanError("A cross-validation goes on as it was begun. Leave out --budget, --epochs and --add-cases.")
    if arguments.folds and is_cross_validation(output):
        there = read_cross_validation(output).folds
        if there != arguments.folds:
            raise PlanError(f"The cross-validation in {output} has {there} folds. Leave out --folds to go on with it.")
    events = resume_cross_validation(output, dataset.cases, device=arguments.device, threads=arguments.threads)
    finished = follow(events, terminal)
    _print_folds(arguments, finished.message)
    return 0


def _print_folds(arguments: argparse.Namespace, message: str) -> None:
    from ..training.cross_validation import read_cross_validation

    record = read_cross_validation(arguments.output)
    if arguments.json:
        print_json({"run": str(arguments.output), **record.as_json()})
        return
    print("\n".join(record.as_lines()))
    print(f"{message}\n{arguments.output}")
