"""What each command does: from its arguments to the rooms, and from their results to the terminal."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DatasetError, FileError, PlanError, Seg3dError
from .terminal import StoppedError, Terminal, follow

if TYPE_CHECKING:
    from ..cases.case import CaseFiles
    from ..cases.dataset import Dataset, Problem
    from ..model.plan import Plan
    from ..training.run import RunFacts
    from ..volumes.files import FileInfo

#: So many problems or cases are listed one by one; of more, their number is told.
_LISTED = 20


def run_inspect(arguments: argparse.Namespace) -> int:
    """``inspect``: what a dataset is like, and everything odd about it."""
    from ..cases.check import check_cases
    from ..cases.dataset import open_dataset
    from ..cases.listing import Problem
    from ..volumes.files import inspect_file

    terminal = _terminal(arguments)
    dataset = open_dataset(arguments.dataset, corrections=arguments.corrections)
    problems = list(dataset.problems)
    headers: dict[str, FileInfo] = {}
    for case in dataset.cases:
        path = next(iter(case.modalities.values())).path
        try:
            headers[case.id] = inspect_file(path)
        except Seg3dError as error:
            problems.append(Problem(path, str(error), "error"))
    if not arguments.quick:
        checked = follow(check_cases(dataset), terminal).result
        problems += [problem for problem in checked if problem not in problems]
    if arguments.json:
        print_json(_dataset_as_json(dataset, headers, problems))
    else:
        print("\n".join(_dataset_in_lines(dataset, headers, problems)))
    return 0


def _dataset_as_json(dataset: Dataset, headers: dict[str, FileInfo], problems: Sequence[Problem]) -> dict[str, Any]:
    cases = []
    for case in dataset.cases:
        entry: dict[str, Any] = {
            "id": case.id,
            "patient": case.patient,
            "modalities": list(case.modalities),
            "truth": case.truth is not None,
            "corrected": case.corrected is not None,
        }
        if case.id in headers:
            geometry = headers[case.id].geometry
            entry |= {
                "shape": list(geometry.shape),
                "spacing_mm": list(geometry.spacing_mm),
                "orientation": geometry.orientation,
                "oblique": geometry.is_oblique,
            }
        cases.append(entry)
    return {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "modalities": list(dataset.modalities),
        "labels": [vars(label) for label in dataset.table],
        "regions": [{"name": region.name, "values": list(region.values)} for region in dataset.regions or ()],
        "labelled": len(dataset.labelled),
        "cases": cases,
        "problems": [
            {"path": _shown(problem.path, dataset.root), "message": problem.message, "severity": problem.severity}
            for problem in problems
        ],
    }


def _dataset_in_lines(dataset: Dataset, headers: dict[str, FileInfo], problems: Sequence[Problem]) -> list[str]:
    geometries = [info.geometry for info in headers.values()]
    labels = ", ".join(f"{label.value} {label.name}" for label in dataset.table) or "none are named"
    lines = [
        f"{dataset.root}: {dataset.layout}",
        f"cases        {len(dataset)}, of which {len(dataset.labelled)} can be learned from",
        f"modalities   {', '.join(dataset.modalities) or 'none'}",
        f"labels       {labels}",
    ]
    if dataset.regions:
        regions = ", ".join(f"{region.name} ({_plus(region.values)})" for region in dataset.regions)
        lines.append(f"regions      {regions}")
    if geometries:
        oblique = sum(geometry.is_oblique for geometry in geometries)
        lines += [
            f"size         {_ranges([g.shape for g in geometries], 'g')} voxels",
            f"spacing      {_ranges([g.spacing_mm for g in geometries], '.3g')} mm",
            "orientation  "
            + ", ".join(f"{codes} ({n})" for codes, n in Counter(g.orientation for g in geometries).most_common())
            + (f"; {oblique} oblique" if oblique else ""),
        ]
    lines.append(f"problems     {len(problems) or 'none'}")
    return lines + [f"  {_problem_in_words(problem, dataset.root)}" for problem in problems]


def _plus(values: Sequence[int]) -> str:
    return "+".join(str(value) for value in values)


def _ranges(triples: Sequence[tuple[float, ...]], form: str) -> str:
    """Smallest to largest along X, Y, Z: "31–43 × 40–59 × 36"."""
    parts = []
    for numbers in zip(*triples, strict=True):
        low, high = format(min(numbers), form), format(max(numbers), form)
        parts.append(low if low == high else f"{low}–{high}")
    return " × ".join(parts)


def run_plan(arguments: argparse.Namespace) -> int:
    """``plan``: the plan that a dataset leads to."""
    terminal = _terminal(arguments)
    train, validation = _cases_to_learn_from(_open(arguments, terminal), arguments, terminal)
    plan = _plan((*train, *validation), arguments, terminal)
    if arguments.json and not arguments.summary:
        print(plan.to_json())
        return 0
    from ..model.footprint import step_memory_mb
    from ..model.networks import parameter_count

    if arguments.summary:
        from ..model.summary import summarise

        summary = summarise(plan)
        if arguments.json:
            print_json({"plan": json.loads(plan.to_json()), "summary": asdict(summary)})
            return 0
    print("\n".join(plan.describe()))
    print(f"Size: {parameter_count(plan) / 1e6:.2f} million parameters, {step_memory_mb(plan):.0f} MB a training step")
    if arguments.summary:
        print(f"\n{summary.as_text()}")
    return 0


def run_train(arguments: argparse.Namespace) -> int:
    """``train``: a run folder with a model."""
    from ..training.run import is_free
    from ..training.torchrun import ranks_here

    rank, _, _ = ranks_here()
    # Of several processes that train together, the first speaks for all.
    arguments.quiet |= rank > 0
    terminal = _terminal(arguments)
    output: Path = arguments.output
    if arguments.fold and not arguments.folds:
        raise PlanError("--fold names one of several folds. Say with --folds how many there are.")
    if not arguments.resume and rank == 0 and not is_free(output):
        raise FileError(f"The folder {output} is not empty. Go on with its run (--resume), or choose another folder.")
    try:
        return _resume(arguments, terminal) if arguments.resume else _train(arguments, terminal)
    except StoppedError:
        if not any((output / name).is_file() for name in ("run.json", "cross_validation.json")):
            raise StoppedError("interrupted before the training began.") from None
        corrections = f" --corrections {arguments.corrections}" if arguments.corrections else ""
        raise StoppedError(
            f"interrupted; the work is saved. Go on with: napari-seg3d train {arguments.dataset} --output {output} "
            f"--resume{corrections}"
        ) from None


def _train(arguments: argparse.Namespace, terminal: Terminal) -> int:
    dataset = _open(arguments, terminal)
    train, validation = _cases_to_learn_from(dataset, arguments, terminal)
    _check((*train, *validation), dataset, terminal)
    plan = _plan((*train, *validation), arguments, terminal)
    terminal.note("\n".join(plan.describe()))
    if arguments.folds:
        from .folds import train_in_folds

        return train_in_folds(arguments, terminal, plan, dataset, (*train, *validation))
    older = _older(arguments, train, validation)
    mixed = f", mixing in {len(older)} older ones" if older else ""
    terminal.note(f"Training on {len(train)} cases{mixed}, validating on {len(validation)}.")

    from ..cases.dataset import read_split
    from ..training.loop import train as training
    from ..training.run import relative

    finished = follow(
        training(
            plan,
            train,
            arguments.output,
            validation=validation,
            start=arguments.start,
            older=older,
            test_ids=() if arguments.split is None else [case.id for case in read_split(arguments.split, dataset).test],
            device=arguments.device,
            threads=arguments.threads,
            dataset=relative(dataset.root, arguments.output),
            older_dataset="" if arguments.rehearse is None else relative(arguments.rehearse, arguments.output),
        ),
        terminal,
    )
    print_run(arguments, finished.message, finished.seconds)
    return 0


def _resume(arguments: argparse.Namespace, terminal: Terminal) -> int:
    fixed = ("recipe", "network", "preset", "start", "split", "seed", "changes", "rehearse")
    if given := [name for name in fixed if getattr(arguments, name) not in (None, [])]:
        option = {"start": "from", "changes": "set"}.get(given[0], given[0])
        raise PlanError(f"--resume goes on with the plan and the cases of the run. Leave out --{option}.")
    from ..cases.dataset import open_dataset
    from ..training.loop import resume
    from ..training.run import RunFolder
    from .folds import is_about_folds, resume_in_folds

    dataset = _open(arguments, terminal)
    if is_about_folds(arguments):
        return resume_in_folds(arguments, terminal, dataset)
    facts = RunFolder.open(arguments.output).facts()
    older = open_dataset(arguments.output / facts.older_dataset).cases if facts.older_ids else ()
    finished = follow(
        resume(
            arguments.output,
            dataset.cases,
            older=older,
            more_s=arguments.budget,
            more_epochs=arguments.epochs,
            add=_to_add(arguments, facts, dataset),
            device=arguments.device,
            threads=arguments.threads,
        ),
        terminal,
    )
    print_run(arguments, finished.message, finished.seconds)
    return 0


def _to_add(arguments: argparse.Namespace, facts: RunFacts, dataset: Dataset) -> list[str]:
    """The cases that --add-cases means: those named, or all that can be learned from by now."""
    if arguments.add_cases is None:
        return []
    if forbidden := set(arguments.add_cases) & {*facts.test_ids, *facts.validation_ids}:
        raise DatasetError(
            f"The run keeps {', '.join(sorted(forbidden))} for validation or testing; learning from them would make "
            "its scores worthless. Leave them out."
        )
    kept = {*facts.train_ids, *facts.validation_ids, *facts.test_ids}
    new = [case.id for case in dataset.labelled if case.id not in kept]
    if not arguments.add_cases and not new:
        raise DatasetError(
            "No case has got a truth since the run began. Leave out --add-cases to go on without new ones."
        )
    return list(arguments.add_cases) or new


def _older(
    arguments: argparse.Namespace, train: Sequence[CaseFiles], validation: Sequence[CaseFiles]
) -> tuple[CaseFiles, ...]:
    """The cases of --rehearse, without those that are learned from or judged by anyway."""
    if arguments.rehearse is None:
        return ()
    if arguments.start is None:
        raise PlanError("--rehearse keeps a model from forgetting. Say with --from which one.")
    from ..cases.dataset import open_dataset

    there = {case.id for case in (*train, *validation)}
    return tuple(case for case in open_dataset(arguments.rehearse).labelled if case.id not in there)


def print_run(arguments: argparse.Namespace, message: str, seconds: float) -> None:
    """Print how a training ended and where its run is."""
    from ..events import EpochDone, Validated
    from ..training.run import read_history

    history = read_history(arguments.output)
    rounds = [event for event in history if isinstance(event, EpochDone)]
    checks = [event for event in history if isinstance(event, Validated)]
    best = max(checks, key=lambda check: check.mean_dice, default=None)
    if not arguments.json:
        print(f"{message}\n{arguments.output}")
        return
    print_json(
        {
            "run": str(arguments.output),
            "epochs": rounds[-1].epoch if rounds else 0,
            "steps": rounds[-1].steps if rounds else 0,
            "mean_dice": None if best is None else best.mean_dice,
            "dice": {} if best is None else dict(best.dice),
            "seconds": round(seconds, 1),
        }
    )


def run_learn(arguments: argparse.Namespace) -> int:
    """``learn``: go on with a model on what was corrected, and keep it if it is better."""
    from .learn import show

    terminal = _terminal(arguments)
    try:
        return show(arguments, terminal, _open(arguments, terminal))
    except StoppedError:
        raise StoppedError("interrupted; the model is as it was.") from None


def run_predict(arguments: argparse.Namespace) -> int:
    """``predict``: a label file for every case."""
    from ..prediction.ensemble import Ensemble
    from ..prediction.predict import predict_many
    from .inputs import cases_to_predict

    terminal = _terminal(arguments)
    models = [arguments.model, *arguments.ensemble]
    # Read here for what the models want, and to refuse those that do not belong together before any case is read.
    ensemble = Ensemble.of(models)
    if len(ensemble.members) > 1:
        terminal.note(f"Mean of {len(ensemble.members)} models: {', '.join(m.name for m in ensemble.members)}.")
    cases, problems = cases_to_predict(arguments.inputs, ensemble.plan.modalities)
    _tell(problems, arguments.inputs[0], terminal)
    cases = _picked(cases, arguments)
    events = predict_many(
        cases,
        models,
        arguments.output,
        overwrite=arguments.overwrite,
        device=arguments.device,
        threads=arguments.threads,
        mirrors=arguments.tta,
        roi=arguments.roi,
        probabilities=arguments.probabilities,
        logits=arguments.logits,
        uncertainty=arguments.uncertainty,
    )
    try:
        finished = follow(events, terminal)
    except StoppedError:
        raise StoppedError(f"interrupted; the cases that were done are in {arguments.output}.") from None
    paths: tuple[Path, ...] = finished.result
    if arguments.json:
        print_json({"predictions": [str(path) for path in paths], "seconds": round(finished.seconds, 1)})
    else:
        print("\n".join(str(path) for path in paths))
        terminal.note(finished.message)
    if missing := len(cases) - len(paths):
        raise Seg3dError(f"{missing} of {len(cases)} cases could not be predicted; the warnings above say why.")
    return 0


def _picked(cases: tuple[CaseFiles, ...], arguments: argparse.Namespace) -> tuple[CaseFiles, ...]:
    """The cases that --cases or --split choose; all without them."""
    from ..cases.dataset import open_dataset, read_split
    from .inputs import chosen

    if arguments.part and not arguments.split:
        raise DatasetError("--part names a list of a split file. Give the file with --split.")
    if arguments.split:
        if len(arguments.inputs) != 1:
            raise DatasetError("--split chooses from one dataset. Give only that as input.")
        split = read_split(arguments.split, open_dataset(arguments.inputs[0]))
        part = arguments.part or "test"
        cases = getattr(split, part)
        if not cases:
            raise DatasetError(f"{arguments.split} lists no cases under {part}.")
    return chosen(cases, arguments.cases) if arguments.cases else cases


def run_evaluate(arguments: argparse.Namespace) -> int:
    """``evaluate``: scores of predictions."""
    from ..comparison.report import Table, evaluate
    from ..comparison.tables import as_json, as_text, write_table

    terminal = _terminal(arguments)
    if arguments.output and arguments.output.suffix.lower() not in (".csv", ".json"):
        raise FileError(f"Scores are written as .csv or .json: {arguments.output.name} must have one of these endings.")
    events = evaluate(
        arguments.predictions,
        arguments.truth,
        surface=not arguments.no_distances,
        tolerance_mm=arguments.tolerance,
        thresholds=not arguments.no_baselines,
    )
    table: Table = follow(events, terminal).result
    if arguments.output:
        write_table(arguments.output, table)
        terminal.note(f"Every score is in {arguments.output}.")
    if arguments.figures:
        from ..comparison.gallery import write_figures

        follow(write_figures(arguments.figures, table, arguments.predictions, arguments.truth), terminal)
        terminal.note(f"The figures are in {arguments.figures}.")
    if arguments.json:
        print_json(as_json(table))
    else:
        print(as_text(table))
    if table.failed:
        total = len(table.cases) + len(table.failed)
        raise Seg3dError(f"{len(table.failed)} of {total} cases could not be compared; the warnings above say why.")
    return 0


def run_figures(arguments: argparse.Namespace) -> int:
    """``figures``: pictures as PNG files."""
    from .figures import draw

    return draw(arguments, _terminal(arguments))


def run_preview(arguments: argparse.Namespace) -> int:
    """``preview``: training patches as the network would see them."""
    from .preview import show

    terminal = _terminal(arguments)
    train, validation = _cases_to_learn_from(_open(arguments, terminal), arguments, terminal)
    return show(arguments, terminal, _plan((*train, *validation), arguments, terminal), train)


def run_runs(arguments: argparse.Namespace) -> int:
    """``runs``: training runs side by side."""
    from ..training.compare_runs import compare_runs, comparison_as_lines, runs_as_lines, summarise_runs

    runs = summarise_runs(arguments.folder)
    if not runs:
        raise FileError(f"There are no training runs in {arguments.folder}.")
    comparison = None
    if arguments.compare:
        by_name = {run.name: run for run in runs}
        if unknown := [name for name in arguments.compare if name not in by_name]:
            raise FileError(f"There is no run {unknown[0]} in {arguments.folder}; there are {_some(list(by_name))}.")
        comparison = compare_runs([by_name[name] for name in dict.fromkeys(arguments.compare)])
    if arguments.json:
        print_json({"runs": [run.as_json() for run in runs], "comparison": comparison and asdict(comparison)})
    else:
        print("\n".join(comparison_as_lines(comparison) if comparison else runs_as_lines(runs)))
    return 0


def run_recipes(arguments: argparse.Namespace) -> int:
    """``recipes``: what ``--recipe`` takes."""
    from .choices import list_recipes

    return list_recipes(arguments)


def run_networks(arguments: argparse.Namespace) -> int:
    """``networks``: what ``--network`` takes."""
    from .choices import list_networks

    return list_networks(arguments)


def _open(arguments: argparse.Namespace, terminal: Terminal) -> Dataset:
    from ..cases.dataset import open_dataset

    dataset = open_dataset(arguments.dataset, corrections=arguments.corrections)
    _tell(dataset.problems, dataset.root, terminal)
    return dataset


def _cases_to_learn_from(
    dataset: Dataset, arguments: argparse.Namespace, terminal: Terminal
) -> tuple[tuple[CaseFiles, ...], tuple[CaseFiles, ...]]:
    from .inputs import training_split, unlabelled

    split = training_split(dataset, arguments.split, arguments.seed or 0)
    if left_out := unlabelled(dataset, arguments.split):
        terminal.line(f"warning: left out, for want of a truth or a modality: {_some(left_out)}")
    return split.train, split.validation


def _check(cases: Sequence[CaseFiles], dataset: Dataset, terminal: Terminal) -> None:
    """Read every case before a training begins, so that a bad file is found now and not in an hour."""
    from dataclasses import replace

    from ..cases.check import check_cases

    problems = follow(check_cases(replace(dataset, cases=tuple(cases))), terminal).result
    _tell(problems, dataset.root, terminal)
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise DatasetError(
            f"{len(errors)} problem{'s' if len(errors) > 1 else ''} must be mended first, for example: "
            f"{errors[0].message} Or leave these cases out with a split file."
        )


def _plan(cases: Sequence[CaseFiles], arguments: argparse.Namespace, terminal: Terminal) -> Plan:
    from ..cases.fingerprint import fingerprint

    if arguments.recipe and (arguments.network or arguments.preset or arguments.start):
        raise PlanError("A recipe fixes network and length and starts anew. Leave out --network, --preset and --from.")
    changes = dict(arguments.changes)
    facts = follow(fingerprint(cases), terminal).result
    length = {"budget_s": arguments.budget, "epochs": arguments.epochs}
    if arguments.recipe:
        from ..model.recipes import plan_from_recipe

        return plan_from_recipe(
            arguments.recipe, facts, device=arguments.device, seed=arguments.seed or 0, changes=changes, **length
        )
    from ..model.checkpoint import read_model_plan
    from ..model.planner import make_plan
    from ..training.torchrun import ranks_here

    plan = make_plan(
        facts,
        network=arguments.network or "unet",
        preset=arguments.preset or "balanced",
        device=arguments.device,
        seed=arguments.seed or 0,
        start=None if arguments.start is None else read_model_plan(arguments.start),
        changes=changes,
        **length,
    )
    _, size, _ = ranks_here()
    if size == 1 or "batch_size" in changes:
        return plan
    return plan.changed({"batch_size": size * plan.batch_size})


def run_phantoms(arguments: argparse.Namespace) -> int:
    """``phantoms``: made-up studies."""
    from ..cases.objects import write_object_dataset
    from ..cases.phantoms import write_phantom_dataset

    shape = {} if arguments.shape is None else {"shape": arguments.shape}
    if arguments.kind == "brain":
        events = write_phantom_dataset(arguments.output, arguments.count, arguments.seed, **shape)
    else:
        # One in six is for testing, as in the tutorial.
        test = max(1, arguments.count // 6) if arguments.count > 1 else 0
        events = write_object_dataset(
            arguments.output, arguments.count - test, test, arguments.seed, background=arguments.background, **shape
        )
    finished = follow(events, _terminal(arguments))
    if arguments.json:
        print_json({"folder": str(finished.result), "cases": arguments.count})
    else:
        print(f"{finished.message}\n{finished.result}")
    return 0


def run_cache(arguments: argparse.Namespace) -> int:
    """``cache``: where prepared cases are, and how to get rid of them."""
    from ..training.cache import PreparedCache

    cache = PreparedCache()
    if arguments.clear:
        cache.clear()
    count, size = cache.size()
    if arguments.json:
        print_json({"folder": str(cache.folder), "cases": count, "bytes": size, "limit_gb": cache.limit_gb})
    else:
        print(f"{cache.folder}: {count} prepared cases, {size / 1e9:.2f} of at most {cache.limit_gb:g} GB")
    return 0


def _terminal(arguments: argparse.Namespace) -> Terminal:
    return Terminal(quiet=arguments.quiet)


def _tell(problems: Sequence[Problem], root: Path, terminal: Terminal) -> None:
    for problem in problems[:_LISTED]:
        terminal.line(_problem_in_words(problem, root))
    if len(problems) > _LISTED:
        terminal.line(f"… and {len(problems) - _LISTED} more problems; see napari-seg3d inspect {root}")


def _problem_in_words(problem: Problem, root: Path) -> str:
    return f"{problem.severity}: {_shown(problem.path, root)}: {problem.message}"


def _shown(path: Path, root: Path) -> str:
    """A path as seen from the dataset's folder."""
    try:
        inside = path.relative_to(root)
    except ValueError:
        return str(path)
    return root.name if inside == Path() else str(inside)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(content, indent=1, ensure_ascii=False))


def run_open(arguments: argparse.Namespace) -> int:
    """``open``, and no command at all: napari with the panels."""
    from .window import open_window

    open_window(arguments.paths, arguments.dataset)
    return 0


def run_demo(arguments: argparse.Namespace) -> int:
    """``demo``: the whole route on a made-up study, then the window or its screenshots."""
    from .. import demo
    from .window import has_display, open_window, take_screenshots

    terminal = _terminal(arguments)
    events = demo.demo(arguments.output, budget_s=arguments.budget, seed=arguments.seed, device=arguments.device)
    try:
        result: demo.Demo = follow(events, terminal).result
    except StoppedError:
        raise StoppedError(f"interrupted; what was done is in {arguments.output}.") from None
    headless = arguments.headless or not has_display()
    if headless:
        terminal.note("Taking screenshots …")
        began = time.monotonic()
        try:
            pictures = take_screenshots(result.study, result.held_out, result.folder / "screenshots")
        except Seg3dError as error:
            # The numbers are what the demonstration is for: they stand without pictures.
            terminal.line(f"warning: no screenshots: {error}")
            pictures = {}
        result = demo.with_time(result, "screenshots", time.monotonic() - began)
        demo.write_report(result, pictures)
    if arguments.json:
        print_json(demo.as_json(result))
    else:
        print(f"{demo.summary(result)}\n\n{result.seconds['total']:.0f} s in all. Report: {result.report}")
    if not headless:
        terminal.note("Opening napari; close its window to end.")
        open_window(dataset=result.study, case=result.held_out)
    return 0
