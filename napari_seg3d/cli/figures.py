"""``figures``: the pictures of a run or of predictions, as PNG files."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import DatasetError, FileError
from .commands import print_json
from .terminal import Terminal, follow


def draw(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Draw one kind of figure and print the files."""
    written = _curves(arguments) if arguments.kind == "curves" else _of_cases(arguments, terminal)
    if arguments.json:
        blind = arguments.kind == "blind"
        entries = [{"path": str(path), **({"truth": letter} if blind else {})} for path, letter in written.items()]
        print_json({"kind": arguments.kind, "figures": entries})
    else:
        print("\n".join(str(path) for path in written))
    return 0


def _curves(arguments: argparse.Namespace) -> dict[Path, str]:
    from ..comparison.canvas import save_figure
    from ..comparison.figures import curves_figure
    from ..training.run import RunFolder, read_history

    if arguments.truth is not None:
        raise FileError("Curves are those of one run. Leave the second folder out.")
    run = RunFolder.open(arguments.input)
    output: Path = arguments.output
    path = output if output.suffix.lower() == ".png" else output / "curves.png"
    return {save_figure(path, curves_figure(read_history(run.folder), run.plan.label_table)): ""}


def _of_cases(arguments: argparse.Namespace, terminal: Terminal) -> dict[Path, str]:
    from ..comparison.gallery import Choice, draw_cases

    predictions, truth = arguments.input, arguments.truth
    if arguments.kind == "panels":
        if truth is not None:
            raise DatasetError("Panels show a dataset's images and labels. Give only the dataset.")
        predictions, truth = None, arguments.input
    elif truth is None:
        raise DatasetError(f"The figure {arguments.kind} compares: give the predictions and then the truth.")
    choice = Choice(
        arguments.kind,
        plane=arguments.plane or "axial",
        all_planes=arguments.plane is None,
        slices=arguments.slices,
        structure=arguments.label or "",
        modality=arguments.modality or "",
        seed=arguments.seed,
    )
    events = draw_cases(choice, predictions, truth, arguments.output, cases=arguments.cases or ())
    written: dict[Path, str] = follow(events, terminal).result
    return written
