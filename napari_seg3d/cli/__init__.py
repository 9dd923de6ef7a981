"""The command line: ``napari-seg3d …``.

Progress goes to standard error with the time left, results to standard output; with ``--json`` they are one JSON
object. Exit status: 0 done, 1 failed with a one-line reason, 2 wrong usage, 130 interrupted with the work saved.

Only the words of the commands stand here, so that help comes at once; what they do is in `commands`, which is loaded
with the rooms it needs when a command runs.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import Seg3dError
from .terminal import JobFailedError, StoppedError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
#: What ``figures`` can draw.
FIGURES = ("curves", "slices", "overview", "panels", "triples", "classes", "blind", "confusion")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that has no "×" or "Δ" shows "?" instead of ending the command.
            stream.reconfigure(errors="replace")
    try:
        arguments = make_parser().parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else WRONG_USAGE
    # Must be set before torch is loaded. Threads that wait by spinning take the cores from each other: beside other
    # work, training was three times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _run(arguments)
    except StoppedError as stopped:
        print(f"napari-seg3d: {stopped}", file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("napari-seg3d: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Seg3dError as error:
        return _failed(
            str(error), error.details if isinstance(error, JobFailedError) else traceback.format_exc(), arguments
        )
    except BrokenPipeError:
        # Whoever read our output (head, less) has had enough; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except MemoryError:
        return _failed("The computer's memory is full. Close other programs.", traceback.format_exc(), arguments)
    except Exception as error:
        message = f"Unexpected {type(error).__name__}: {error}. This is a defect; please report it with --details."
        return _failed(message, traceback.format_exc(), arguments)


def _run(arguments: argparse.Namespace) -> int:
    from . import commands

    run = getattr(commands, arguments.run)
    result = run(arguments)
    sys.stdout.flush()
    return result if isinstance(result, int) else DONE


def _failed(message: str, details: str, arguments: argparse.Namespace) -> int:
    if arguments.details:
        print(details.rstrip(), file=sys.stderr)
    print(f"napari-seg3d: {' '.join(message.split())}", file=sys.stderr)
    return FAILED


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="napari-seg3d",
        description="Learn, predict, compare and correct 3D segmentations of MRI. Without a command, napari opens with "
        "the Seg3D panels.",
        epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted with the work saved.",
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--details", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(run="run_open", paths=[], dataset=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_demo(commands)
    _add_open(commands)
    _add_inspect(commands)
    _add_plan(commands)
    _add_train(commands)
    _add_learn(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_figures(commands)
    _add_preview(commands)
    _add_runs(commands)
    _add_phantoms(commands)
    _add_cache(commands)
    for name, what in (("recipes", "published systems and automatic planning"), ("networks", "network families")):
        command = _command(commands, name, f"list the {what} that can be chosen, with parameters and memory")
        if name == "networks":
            command.add_argument("--summary", metavar="NAME", help="show this one layer by layer instead")
        _add_json(command)
    return parser


def _command(commands: Any, name: str, what: str, more: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}. {more}".strip()
    )
    command.set_defaults(run=f"run_{name}")
    # The default must not overwrite what stands before the command.
    command.add_argument(
        "--details", action="store_true", default=argparse.SUPPRESS, help="after an error, show its technical details"
    )
    return command


def _add_demo(commands: Any) -> None:
    command = _command(
        commands,
        "demo",
        "make up a small study, train on it, predict a case, compare it with the truth, and show all that",
        "Takes about three minutes on two cores. The report is a file that opens in any browser.",
    )
    command.add_argument("--headless", action="store_true", help="open no window; leave the report and screenshots")
    command.add_argument(
        "--output", type=Path, default=Path("seg3d-demo"), metavar="DIR", help="new folder (default: %(default)s)"
    )
    command.add_argument(
        "--budget", type=seconds_of, default=150.0, metavar="TIME", help="time for the training (default: 150s)"
    )
    command.add_argument("--seed", type=int, default=0, help="number from which all chance follows (default: 0)")
    _add_device(command)
    _add_json(command)


def _add_open(commands: Any) -> None:
    command = _command(commands, "open", "open images, a case or a dataset in napari")
    command.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="image file, case folder or dataset")
    command.add_argument("--dataset", type=Path, metavar="DIR", help="dataset to show in the Data panel")


def _add_inspect(commands: Any) -> None:
    command = _command(
        commands,
        "inspect",
        "tell layout, cases, modalities, labels and geometry of a dataset, and everything odd about it",
    )
    _add_dataset(command)
    command.add_argument("--quick", action="store_true", help="read no voxels: only folders and headers")
    _add_json(command)


def _add_plan(commands: Any) -> None:
    command = _command(commands, "plan", "show the plan that a dataset leads to, with a reason for every choice")
    _add_dataset(command)
    _add_plan_choices(command)
    command.add_argument("--summary", action="store_true", help="also show the network layer by layer")
    _add_json(command)


def _add_train(commands: Any) -> None:
    command = _command(
        commands,
        "train",
        "train a network on the labelled cases of a dataset",
        "Ctrl-C stops it and saves; --resume goes on. Without a split file, about a tenth of the cases is kept for "
        "validation. Cases that the split file lists under test are never touched.",
    )
    _add_dataset(command)
    command.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder of the run")
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in that folder; a finished one gets the --budget or --epochs given here on top",
    )
    command.add_argument(
        "--add-cases",
        nargs="*",
        metavar="ID",
        help="with --resume: also learn from these cases, or from all that have got a truth since; not from test cases",
    )
    command.add_argument(
        "--rehearse",
        type=Path,
        metavar="DATASET",
        help="with --from: mix in cases of the dataset that the model learned from, so that it does not forget them",
    )
    command.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="cross-validate: train N models into RUN/fold1 …, each judged by the cases it did not learn from; a "
        "--budget or --epochs is for each fold",
    )
    command.add_argument("--fold", type=int, metavar="K", help="train only this one of the folds, from 1, into RUN")
    _add_plan_choices(command)
    _add_threads(command)
    _add_json(command)


def _add_learn(commands: Any) -> None:
    command = _command(
        commands,
        "learn",
        "train a model on with corrected cases, and keep the new one only if it is better",
        "Learned from are the cases, or the slices, that were checked on the Review page. About a fifth of them is "
        "held out, and by these the new model is compared with the old one. If it is not better, no run is left.",
    )
    _add_dataset(command)
    command.add_argument("--from", dest="start", type=Path, required=True, metavar="MODEL", help="the current model")
    command.add_argument("--output", type=Path, required=True, metavar="RUN", help="folder for the better model")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--budget", type=seconds_of, metavar="TIME", help="time for the training (default: 5m)")
    length.add_argument("--epochs", type=int, metavar="N", help="number of rounds")
    command.add_argument("--held-out", nargs="+", metavar="ID", help="judge by these checked cases")
    _add_device(command)
    _add_threads(command)
    _add_json(command)


def _add_predict(commands: Any) -> None:
    command = _command(
        commands,
        "predict",
        "predict cases with a trained model, each on its own grid",
        "Several image files belong to one case if the model wants several modalities: name them in the model's order, "
        "or so that their names tell the modality. The folder of a cross-validation stands for the models of its "
        "folds, whose probabilities are averaged.",
    )
    command.add_argument("model", type=Path, metavar="MODEL", help="run folder, model file, or cross-validation")
    command.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="case folder, dataset or image files")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where <case>.nii.gz is written")
    command.add_argument(
        "--ensemble", nargs="+", type=Path, default=[], metavar="MODEL", help="average with these models as well"
    )
    command.add_argument("--overwrite", action="store_true", help="replace predictions that are there already")
    command.add_argument("--cases", nargs="+", metavar="ID", help="only these cases of a dataset")
    command.add_argument("--split", type=Path, metavar="FILE", help="only the cases that this JSON file lists …")
    command.add_argument("--part", choices=("train", "validation", "test"), help="… under this name (default: test)")
    command.add_argument("--tta", action="store_true", help="average over mirrored images: slower, a little better")
    command.add_argument(
        "--roi", type=box_of, metavar="x0:x1,y0:y1,z0:z1", help="only in this box of voxels; an end may be left out"
    )
    command.add_argument("--probabilities", action="store_true", help="also write a map for each label or region")
    command.add_argument(
        "--logits", action="store_true", help="also write the network's outputs before they become probabilities"
    )
    command.add_argument("--uncertainty", action="store_true", help="also write where the model is unsure, from 0 to 1")
    _add_device(command)
    _add_threads(command)
    _add_json(command)


def _add_evaluate(commands: Any) -> None:
    command = _command(
        commands,
        "evaluate",
        "compare predictions with the truth: Dice, IoU, volumes and distances in mm",
        "Files are matched by case id; what has no partner is listed.",
    )
    command.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="folder of <case>.nii.gz, or one file")
    command.add_argument("truth", type=Path, metavar="TRUTH", help="dataset, folder of label files, or one file")
    command.add_argument("--output", type=Path, metavar="FILE", help="write every score to this .csv or .json file")
    command.add_argument(
        "--figures", type=Path, metavar="DIR", help="write a picture of each case there, and an overview"
    )
    command.add_argument("--no-distances", action="store_true", help="only overlap and volumes, which is faster")
    command.add_argument(
        "--no-baselines", action="store_true", help="do not read the images to look for the best threshold"
    )
    command.add_argument(
        "--tolerance", type=positive, default=1.0, metavar="MM", help="tolerance of the surface Dice (default: 1 mm)"
    )
    _add_json(command)


def _add_phantoms(commands: Any) -> None:
    command = _command(
        commands,
        "phantoms",
        "make up studies to try things on: heads with a tumour, or volumes of objects",
        "Cases that are there already are never written over.",
    )
    command.add_argument(
        "kind", choices=("brain", "objects"), help="four-modality heads with a nested tumour, or objects on nothing"
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="where they are written")
    command.add_argument("--count", type=count_of, default=6, metavar="N", help="number of studies (default: 6)")
    command.add_argument("--shape", type=shape_of, metavar="X,Y,Z", help="voxels of each")
    command.add_argument(
        "--background", type=float, default=0.0, metavar="LEVEL", help="objects: noise between them, up to 255"
    )
    command.add_argument("--seed", type=int, default=0, help="number from which all chance follows (default: 0)")
    _add_json(command)


def _add_figures(commands: Any) -> None:
    command = _command(
        commands,
        "figures",
        "draw the figures of the articles: "
        "curves of a run; slices, overview, triples, classes, blind and confusion of predictions; panels of a dataset",
        "Slices look as radiologists read them and are numbered as in the file, from 0. PNG files are replaced.",
    )
    command.add_argument("kind", choices=FIGURES, metavar="KIND", help=", ".join(FIGURES))
    command.add_argument("input", type=Path, metavar="INPUT", help="run folder, predictions, or for panels a dataset")
    command.add_argument(
        "truth", nargs="?", type=Path, metavar="TRUTH", help="dataset, folder of label files, or one file"
    )
    command.add_argument(
        "--output", type=Path, required=True, metavar="PATH", help=".png file for one figure, or folder for many"
    )
    command.add_argument("--cases", nargs="+", metavar="ID", help="only these cases")
    command.add_argument("--plane", choices=("axial", "coronal", "sagittal"), help="default: axial; for panels all")
    command.add_argument(
        "--slices", type=numbers_of, default=(), metavar="N,N,…", help="which slices (default: where the labels are)"
    )
    command.add_argument("--label", metavar="NAME", help="only this class or region (default: all labels)")
    command.add_argument("--modality", metavar="NAME", help="the image beneath the labels (default: the first)")
    command.add_argument("--seed", type=int, default=0, help="decides which one is A in a blind test (default: 0)")
    _add_json(command)


def _add_preview(commands: Any) -> None:
    command = _command(
        commands,
        "preview",
        "write training patches after all transforms, as the network would see them",
        "Takes the options of plan and train. Each patch gets a folder with its images and labels as NIfTI and a "
        "picture.",
    )
    _add_dataset(command)
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the patches")
    command.add_argument("--count", type=count_of, default=1, metavar="N", help="how many patches (default: 1)")
    command.add_argument("--step", type=int, default=0, metavar="N", help="step of the training to begin with")
    _add_plan_choices(command)
    _add_json(command)


def _add_cache(commands: Any) -> None:
    command = _command(
        commands,
        "cache",
        "tell where prepared cases are kept and how much room they take",
        "They may be deleted at any time and are made anew when wanted. NAPARI_SEG3D_CACHE sets another folder, "
        "NAPARI_SEG3D_CACHE_GB the limit.",
    )
    command.add_argument("--clear", action="store_true", help="delete all of them")
    _add_json(command)


def _add_runs(commands: Any) -> None:
    command = _command(
        commands,
        "runs",
        "list training runs with their Dice, and compare those that were judged on the same cases",
        "A cross-validation stands above its folds, with the Dice over all its cases.",
    )
    command.add_argument("folder", type=Path, metavar="FOLDER", help="folder of runs, or project folder")
    command.add_argument(
        "--compare", nargs="+", metavar="RUN", help="compare these runs case by case, with Wilcoxon's signed-rank test"
    )
    _add_json(command)


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("dataset", type=Path, metavar="DATASET", help="folder in any recognised layout")
    command.add_argument(
        "--corrections", type=Path, metavar="DIR", help="corrected label maps, which are preferred to the older truth"
    )


def _add_plan_choices(command: argparse.ArgumentParser) -> None:
    command.add_argument("--recipe", metavar="NAME", help="a published system: see napari-seg3d recipes")
    command.add_argument("--network", metavar="NAME", help="a network family: see napari-seg3d networks")
    command.add_argument("--preset", metavar="NAME", help="fast, balanced (default) or thorough")
    command.add_argument("--from", dest="start", type=Path, metavar="MODEL", help="start from this model's weights")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--budget", type=seconds_of, metavar="TIME", help="time for the training: 90s, 10m, 1h30m")
    length.add_argument("--epochs", type=int, metavar="N", help="number of rounds")
    command.add_argument("--split", type=Path, metavar="FILE", help="JSON file: case ids under train, test, validation")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="changes",
        type=setting_of,
        metavar="KEY=VALUE",
        help="change a setting of the plan, such as batch_size=4 or patch_voxels=64,64,32; may be repeated",
    )
    command.add_argument("--seed", type=int, metavar="N", help="number from which all chance follows (default: 0)")
    _add_device(command)


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, metavar="N", help="threads on the CPU (default: as many as cores)")


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--quiet", action="store_true", help="show no progress")


class _Version(argparse.Action):
    """Print the version; it is looked up only then, for that takes as long as the rest of the help."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"napari-seg3d {version('napari-seg3d')}")
        parser.exit()


def seconds_of(text: str) -> float:
    """A time span in seconds.

    Examples
    --------
    >>> seconds_of("90s"), seconds_of("10m"), seconds_of("1h30m"), seconds_of("45")
    (90.0, 600.0, 5400.0, 45.0)
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        total = float(text)
    else:
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.lower())
        if not parts or "".join(number + unit for number, unit in parts) != text.lower():
            raise argparse.ArgumentTypeError(f"expected a time such as 90s, 10m or 1h30m, got {text!r}")
        total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if total <= 0:
        raise argparse.ArgumentTypeError(f"expected a time above zero, got {text!r}")
    return total


def positive(text: str) -> float:
    """A number above zero."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above zero, got {text!r}")
    return number


def numbers_of(text: str) -> tuple[int, ...]:
    """Numbers from 0 on, with commas.

    Examples
    --------
    >>> numbers_of("10,31,63")
    (10, 31, 63)
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected numbers such as 10,31,63, got {text!r}")
    return tuple(int(part) for part in parts)


def count_of(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 on, got {text!r}")
    return int(text)


def box_of(text: str) -> tuple[slice, slice, slice]:
    """Three ranges of voxels along X, Y, Z.

    Examples
    --------
    >>> box_of("10:60,:80,5:")
    (slice(10, 60, None), slice(0, 80, None), slice(5, None, None))
    """
    parts = [re.fullmatch(r"\s*(\d*):(\d*)\s*", part) for part in text.split(",")]
    if len(parts) != 3 or not all(parts):
        raise argparse.ArgumentTypeError(f"expected three ranges of voxels such as 10:60,20:80,5:30, got {text!r}")
    box = [slice(int(m[1] or 0), int(m[2]) if m[2] else None) for m in parts if m]
    if any(side.stop is not None and side.stop <= side.start for side in box):
        raise argparse.ArgumentTypeError(f"expected each range to end after its start, got {text!r}")
    return box[0], box[1], box[2]


def shape_of(text: str) -> tuple[int, int, int]:
    """Three numbers of voxels.

    Examples
    --------
    >>> shape_of("64,64,32")
    (64, 64, 32)
    """
    parts = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", text)
    if not parts or not all(4 <= int(part) <= 1024 for part in parts.groups()):
        raise argparse.ArgumentTypeError(f"expected three numbers from 4 to 1024 such as 64,64,32, got {text!r}")
    return int(parts[1]), int(parts[2]), int(parts[3])


def setting_of(text: str) -> tuple[str, object]:
    """Name and value of a setting; a value may be a number, text, true, false, none, or a list with commas.

    Examples
    --------
    >>> setting_of("batch_size=4"), setting_of("patch_voxels=64,64,32"), setting_of("targets=regions")
    (('batch_size', 4), ('patch_voxels', [64, 64, 32]), ('targets', 'regions'))
    """
    key, equals, value = text.partition("=")
    if not key.strip() or not equals:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got {text!r}")
    return key.strip(), _value_of(value.strip())


def _value_of(text: str) -> object:
    import json

    try:
        return json.loads({"none": "null", "True": "true", "False": "false", "None": "null"}.get(text, text))
    except (ValueError, RecursionError):
        pass
    if "," in text and not text.startswith(("[", "{", '"')):
        return [_value_of(part.strip()) for part in text.split(",") if part.strip()]
    return text
