"""``preview``: training patches as the network would see them, as NIfTI files and pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .commands import print_json
from .terminal import Terminal, follow

if TYPE_CHECKING:
    from ..cases.case import CaseFiles
    from ..model.plan import Plan


def show(arguments: argparse.Namespace, terminal: Terminal, plan: Plan, cases: Sequence[CaseFiles]) -> int:
    """Write the first patches of a training and print what was done to each."""
    from ..training.preview import write_patches

    events = write_patches(plan, cases, arguments.output, count=arguments.count, first_step=arguments.step)
    patches = follow(events, terminal).result
    if arguments.json:
        entries = [
            {
                "name": patch.name,
                "case": patch.case_id,
                "step": patch.step,
                "place": patch.place,
                "done": list(patch.done),
                "files": [str(path) for path in paths],
            }
            for patch, paths in patches
        ]
        print_json({"patches": entries})
    else:
        for patch, paths in patches:
            print(f"{patch.in_words()}\n  {paths[0].parent}")
    return 0
