"""The whole route on a made-up study: make it up, plan, train, predict a held-out case, compare, report.

The folder it leaves is laid out as the window lays out a project, so that napari opened on it shows everything::

    report.html, report.json  what happened, self-contained
    study/                    the cases
    study-seg3d/runs/demo/    the training run
    study-seg3d/predictions/  the held-out case as predicted
    split.json                which cases were for what
    figures/, screenshots/    the pictures of the report
"""

from __future__ import annotations

import base64
import html
import json
import os
import platform
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from .cases.dataset import Dataset, Split, open_dataset
from .cases.fingerprint import fingerprint
from .cases.phantoms import write_phantom_dataset
from .comparison.baselines import Baseline, baselines
from .comparison.canvas import save_figure
from .comparison.figures import case_figure, curves_figure
from .comparison.report import LabelScores, Scores, compare
from .comparison.surface import DEFINITIONS
from .comparison.tables import OVERLAP_DEFINITION, columns, scores_as_json
from .errors import FileError, Seg3dError
from .events import Event, Failed, Finished, Progress, job
from .model.plan import Plan
from .model.planner import make_plan
from .prediction.predict import predict_many
from .training.loop import train
from .training.run import RunFolder, read_history
from .volumes.atomic import write_text_whole
from .volumes.files import read_label_map

#: Made-up cases: the last is held out, the one before it validates, the others train.
CASES = 8
SHAPE = (72, 80, 32)
#: Seconds of training. With everything around it, the demonstration stays below four minutes on two cores.
BUDGET_S = 150.0
#: Edge of a training patch relative to what the planner proposes.
PATCH_SHARE = 0.6
_MARK = ".seg3d-demo"
_STUDY, _PROJECT, _SPLIT = "study", "study-seg3d", "split.json"
_OURS = (_STUDY, f"{_PROJECT}/runs", f"{_PROJECT}/predictions", _SPLIT, "figures", "screenshots")


@dataclass(frozen=True, eq=False)
class Demo:
    """What a demonstration has left behind and found out.

    Parameters
    ----------
    folder, study, run, prediction : Path
        Output folder, dataset, run folder, predicted label file.
    held_out : str
        Id of the case that was predicted.
    scores : Scores
        Of the prediction.
    baselines : tuple of Baseline
        All background, and the best threshold.
    plan : Plan
        What was trained with.
    seconds : mapping of str to float
        By part of the work, with a total.
    figures : mapping of str to Path
        Title -> picture.
    """

    folder: Path
    study: Path
    run: Path
    prediction: Path
    held_out: str
    scores: Scores
    baselines: tuple[Baseline, ...]
    plan: Plan
    seconds: Mapping[str, float]
    figures: Mapping[str, Path]

    @property
    def report(self) -> Path:
        """The report to open in a browser."""
        return self.folder / "report.html"


@job
def demo(
    output: Path,
    *,
    budget_s: float = BUDGET_S,
    seed: int = 0,
    device: str = "auto",
    shape: tuple[int, int, int] = SHAPE,
) -> Iterator[Event]:
    """Run the demonstration.

    Parameters
    ----------
    output : Path
        Folder to make, or one of an earlier demonstration, whose files are replaced (corrections stay).
    budget_s : float
        Time for the training in seconds.
    seed : int
        Number from which study and training follow.
    device : str
        As in `napari_seg3d.training.loop.train`.
    shape : (int, int, int)
        Voxels of each made-up case.

    Yields
    ------
    Event
        Those of each part; the last is Finished with a `Demo`, or Failed.
    """
    _claim(output)
    clock = _Stopwatch()
    study = output / _STUDY
    yield from _passed_on(write_phantom_dataset(study, CASES, seed, shape=shape))
    dataset = open_dataset(study)
    split = _split(dataset)
    write_text_whole(output / _SPLIT, json.dumps(_ids(split), indent=1))
    clock.lap("making up the study")

    facts = yield from _passed_on(fingerprint((*split.train, *split.validation)))
    # Each label is learned for itself, for each is judged by itself.
    choices = {"targets": "classes"}
    plan = _quick(make_plan(facts, budget_s=budget_s, device=device, seed=seed, changes=choices))
    clock.lap("planning")

    run: Path = output / _PROJECT / "runs" / "demo"
    yield from _passed_on(train(plan, split.train, run, validation=split.validation, device=device, dataset=_STUDY))
    clock.lap("training")

    (held_out,) = split.test
    predictions = output / _PROJECT / "predictions"
    (predicted_path,) = yield from _passed_on(predict_many([held_out], run, predictions, device=device))
    clock.lap("predicting")

    yield Progress("Comparing", 0)
    case = held_out.load()
    assert case.truth is not None  # every made-up case has one
    predicted = read_label_map(predicted_path, case.truth.table)
    scores = compare(predicted, case.truth, regions=dataset.regions, case=held_out.id)
    image = next(iter(case.modalities.values()))
    figures = {
        "The held-out case": save_figure(
            output / "figures" / f"{held_out.id}.png", case_figure(predicted, case.truth, image, scores)
        ),
        "The training": save_figure(
            output / "figures" / "training.png", curves_figure(read_history(run), plan.label_table)
        ),
    }
    compared = baselines(case, dataset.regions or ())
    clock.lap("comparing")
    result = Demo(output, study, run, predicted_path, held_out.id, scores, compared, plan, clock.seconds, figures)
    write_report(result)
    yield Finished(result, summary(result), clock.seconds["total"])


def _claim(folder: Path) -> None:
    """Make the folder, or clear what an earlier demonstration left in it."""
    mark = folder / _MARK
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file. Choose a folder for the demonstration.")
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise FileError(
            f"The folder {folder} is not empty and not of an earlier demonstration. Choose a new one with --output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _OURS:
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"The folder {folder} cannot be used: {error.strerror or error}.") from None
    write_text_whole(mark, "A demonstration of napari-seg3d; running it again replaces what lies here.\n")


def _passed_on(events: Iterator[Event]) -> Generator[Event, None, Any]:
    """Pass the events of a job on, all but its end; the result is returned, a failure raised."""
    finished: Finished | None = None
    for event in events:
        if isinstance(event, Failed):
            raise Seg3dError(event.message)
        if isinstance(event, Finished):
            finished = event
        else:
            yield event
    if finished is None:
        raise Seg3dError("The work ended without a result.")
    return finished.result


def _split(dataset: Dataset) -> Split:
    *train_cases, validation, test = dataset.labelled
    return Split(tuple(train_cases), (test,), (validation,))


def _quick(plan: Plan) -> Plan:
    """Return a plan with smaller patches: in two minutes many looks teach more than a few at whole heads."""
    steps = plan.network.divisor
    patch = tuple(ceil(PATCH_SHARE * size / n) * n for size, n in zip(plan.patch_voxels, steps, strict=True))
    return plan.changed({"patch_voxels": patch, "steps_per_epoch": 25})


def _ids(split: Split) -> dict[str, list[str]]:
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {name: [case.id for case in cases] for name, cases in parts.items()}


class _Stopwatch:
    """Seconds by part of the work."""

    def __init__(self) -> None:
        self._began = self._lap = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds.pop("total", None)
        self.seconds |= {part: round(now - self._lap, 1), "total": round(now - self._began, 1)}
        self._lap = now


def summary(result: Demo) -> str:
    """The result in a few lines: Dice of each label beside what one gets without learning."""
    names = [baseline.name for baseline in result.baselines]
    rows = [
        (score.name, f"{score.dice:.3f}", *(f"{baseline.dice[score.name]:.3f}" for baseline in result.baselines))
        for score in result.scores.by_label
    ]
    means = (f"{result.scores.mean_dice:.3f}", *(f"{baseline.mean_dice:.3f}" for baseline in result.baselines))
    table = columns(("Dice", "trained", *names), [*rows, ("mean", *means)])
    return f"{result.held_out}, which the network has never seen:\n\n{table}"


def as_json(result: Demo) -> dict[str, Any]:
    """Everything the report says, as one JSON object with paths relative to the folder."""
    return {
        "held_out": result.held_out,
        "mean_dice": result.scores.mean_dice,
        "scores": scores_as_json(result.scores),
        "baselines": {
            baseline.name: {
                "mean_dice": baseline.mean_dice,
                "dice": dict(baseline.dice),
                "how": dict(baseline.how),
                "region_dice": dict(baseline.region_dice),
            }
            for baseline in result.baselines
        },
        "seconds": dict(result.seconds),
        "plan": result.plan.describe(),
        "machine": _machine(result),
        "files": {
            "report": result.report.name,
            "study": _inside(result, result.study),
            "run": _inside(result, result.run),
            "prediction": _inside(result, result.prediction),
        },
    }


def _inside(result: Demo, path: Path) -> str:
    return path.relative_to(result.folder).as_posix()


def _machine(result: Demo) -> dict[str, str]:
    facts = RunFolder.open(result.run).facts()
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "trained on": facts.device,
        **facts.versions,
    }


def write_report(result: Demo, screenshots: Mapping[str, Path] | None = None) -> Path:
    """Write ``report.html`` and ``report.json``.

    Parameters
    ----------
    result : Demo
    screenshots : mapping of str to Path, optional
        Title -> PNG file, shown in the report.

    Returns
    -------
    Path
        The HTML file; it holds its pictures and needs no other file.
    """
    shown = dict(screenshots or {})
    content = as_json(result) | {"screenshots": {title: _inside(result, path) for title, path in shown.items()}}
    write_text_whole(result.folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_text_whole(result.report, "\n".join(_page(result, shown)))
    return result.report


def with_time(result: Demo, part: str, seconds: float) -> Demo:
    """Return the result with the time of another part."""
    times = {name: value for name, value in result.seconds.items() if name != "total"}
    times |= {part: round(seconds, 1), "total": round(result.seconds["total"] + seconds, 1)}
    return replace(result, seconds=times)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid #e0e0e0; }
th:first-child, td:first-child { text-align: left; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border: 1px solid #0003; }
.big { font-size: 1.25rem; } .quiet { color: #666; font-size: .9rem; }
img { max-width: 100%; height: auto; } pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; }
"""


def _page(result: Demo, screenshots: Mapping[str, Path]) -> Iterator[str]:
    scores = result.scores
    beside = " and ".join(f"{baseline.mean_dice:.3f} ({baseline.name})" for baseline in result.baselines)
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f"<title>napari-seg3d demonstration</title><style>{_STYLE}</style></head><body>"
    yield "<h1>A brain tumour study, made up, learned and predicted</h1>"
    yield (
        f'<p class="big">Mean Dice of the held-out case: <b>{scores.mean_dice:.3f}</b>, against {beside}, after '
        f"{result.seconds['training']:.0f} s of training.</p>"
    )
    yield (
        f"<p>{CASES} heads with a nested tumour were made up in FLAIR, T1, T1c and T2. {CASES - 2} trained a network, "
        f"one chose the best moment to stop, and {_text(result.held_out)} was kept away until the end. The best "
        "threshold is the best that any window of any one image could do, chosen with the truth of this very case.</p>"
    )
    yield from _score_table(result)
    yield f'<p class="quiet">{_text(OVERLAP_DEFINITION)} {_text(DEFINITIONS)}</p>'
    for title, path in {**result.figures, **screenshots}.items():
        yield f"<h2>{_text(title)}</h2>{_picture(title, path)}"
    yield "<h2>The plan</h2><ul>" + "".join(f"<li>{_text(line)}</li>" for line in result.plan.describe()) + "</ul>"
    yield from _closing(result)
    yield "</body></html>\n"


def _score_table(result: Demo) -> Iterator[str]:
    names = [baseline.name for baseline in result.baselines]
    head = ("", "Dice", *names, "HD95 mm", "surface mm", "predicted ml", "truth ml")
    yield "<table><tr>" + "".join(f"<th>{_text(name)}</th>" for name in head) + "</tr>"
    for score in result.scores.by_label:
        yield _row(score, [f"{baseline.dice[score.name]:.3f}" for baseline in result.baselines])
    for score in result.scores.by_region:
        yield _row(score, [f"{baseline.region_dice[score.name]:.3f}" for baseline in result.baselines])
    yield "</table>"
    best = result.baselines[-1]
    yield (
        f'<p class="quiet">{_text(best.name.capitalize())}: '
        + _text("; ".join(f"{name} where {how}" for name, how in best.how.items()))
        + ".</p>"
    )


def _row(score: LabelScores, baseline_dices: Sequence[str]) -> str:
    name = f'<span class="swatch" style="background:{_text(score.color)}"></span>{_text(score.name)}'
    if score.is_region:
        name += f" ({' + '.join(str(value) for value in score.values)})"
    cells = [
        f"<b>{score.dice:.3f}</b>",
        *baseline_dices,
        *(_number(value) for value in (score.hd95_mm, score.mean_surface_mm, score.predicted_ml, score.truth_ml)),
    ]
    return f"<tr><td>{name}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.2f}"


def _closing(result: Demo) -> Iterator[str]:
    seconds = ", ".join(f"{part} {value:.0f} s" for part, value in result.seconds.items())
    machine = ", ".join(f"{name} {value}" for name, value in _machine(result).items())
    yield f"<h2>Time and machine</h2><p>{_text(seconds)}.</p><p>{_text(machine)}.</p>"
    run, predictions = _inside(result, result.run), _inside(result, result.prediction.parent)
    length = f"--budget {result.plan.budget_s:.0f}s --seed {result.plan.seed}"
    commands = [
        f"napari-seg3d train {_STUDY} --output another-run --split {_SPLIT} {length}",
        f"napari-seg3d predict {run} {_STUDY} --split {_SPLIT} --output another-prediction",
        f"napari-seg3d evaluate {predictions} {_STUDY}",
        f"napari-seg3d open {_STUDY}",
    ]
    yield "<h2>The same by hand, in this folder</h2><pre>" + _text("\n".join(commands)) + "</pre>"


def _picture(title: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{_text(title)}" src="data:image/png;base64,{data}">'


def _text(text: str) -> str:
    return html.escape(text)
