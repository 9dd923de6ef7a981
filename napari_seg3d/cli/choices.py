"""What can be chosen, recipes and networks, with the size that each would have here."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import Seg3dError
from .commands import print_json

if TYPE_CHECKING:
    from ..cases.fingerprint import Fingerprint
    from ..model.plan import Plan

#: Name, what it is, and how it is planned.
Choice = tuple[str, str, "Callable[[Fingerprint], Plan]"]


@dataclass(frozen=True)
class _Sample:
    """A made-up study, by which choices are compared before there is a dataset."""

    facts: Fingerprint
    in_words: str


def list_recipes(arguments: argparse.Namespace) -> int:
    """``recipes``: every recipe with what it is and what it would need."""
    from ..model.recipes import plan_from_recipe, recipe_names, recipe_summary

    sample = _sample()
    entries = _entries([(n, recipe_summary(n), partial(plan_from_recipe, n)) for n in recipe_names()], sample)
    if arguments.json:
        return _as_json(entries, sample)
    for entry in entries:
        print(f"{entry['name']}: {entry['what']}\n    {entry['error'] or _needs(entry)}")
    print(_note(sample))
    return 0


def list_networks(arguments: argparse.Namespace) -> int:
    """``networks``: every family in a table, or one of them layer by layer."""
    from ..model.networks import network_names, network_summary
    from ..model.planner import make_plan

    if arguments.summary:
        network_summary(arguments.summary)  # raises with the list of names
    sample = _sample()
    if arguments.summary:
        from ..model.summary import summarise

        summary = summarise(make_plan(sample.facts, network=arguments.summary))
        if arguments.json:
            print_json({"for": sample.in_words, "summary": asdict(summary)})
        else:
            print(f"{summary.as_text()}\n{_note(sample)}")
        return 0
    entries = _entries([(n, network_summary(n), partial(make_plan, network=n)) for n in network_names()], sample)
    if arguments.json:
        return _as_json(entries, sample)
    print("\n".join(_table(entries)))
    print(_note(sample))
    return 0


def _sample() -> _Sample:
    from ..cases.fingerprint import fingerprint
    from ..cases.phantoms import brain_phantom
    from ..events import result_of

    study = brain_phantom(1)
    size = " × ".join(str(n) for n in study.geometry.shape)
    return _Sample(
        result_of(fingerprint([study])),
        f"the sample brain study ({len(study.modalities)} modalities, {size} voxels)",
    )


def _entries(choices: Sequence[Choice], sample: _Sample) -> list[dict[str, Any]]:
    """What each choice would be for the sample; one that cannot be built says why and leaves the others alone."""
    from ..model.footprint import step_memory_mb
    from ..model.networks import parameter_count

    entries = []
    for name, what, planned in choices:
        entry: dict[str, Any] = dict.fromkeys(
            ("name", "what", "network", "parameters", "patch_voxels", "divisor", "batch_size", "memory_mb", "error")
        )
        entry |= {"name": name, "what": what}
        try:
            plan = planned(sample.facts)
            entry |= {
                "network": plan.network.name,
                "patch_voxels": list(plan.patch_voxels),
                "divisor": list(plan.network.divisor),
                "batch_size": plan.batch_size,
                "parameters": parameter_count(plan),
                "memory_mb": round(step_memory_mb(plan)),
            }
        except (Seg3dError, ImportError, RuntimeError, ValueError) as error:
            # Libraries raise these three for sizes and for parts of theirs that are not installed.
            entry["error"] = f"cannot be used here: {error}"
        entries.append(entry)
    return entries


def _table(entries: Sequence[dict[str, Any]]) -> list[str]:
    cells = [("network", "parameters", "a step", "patch × batch"), *map(_cells, entries)]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    # What it is good for fills the rest of the line, and goes on below itself.
    room = max(24, shutil.get_terminal_size((120, 24)).columns - sum(widths) - 4 * 2)
    texts = ["good for", *(entry["error"] or entry["what"] for entry in entries)]
    lines = []
    for (name, parameters, memory, patch), text in zip(cells, texts, strict=True):
        start = f"{name:{widths[0]}}  {parameters:>{widths[1]}}  {memory:>{widths[2]}}  {patch:{widths[3]}}"
        first, *more = textwrap.wrap(text, room)
        lines += [f"{start}  {first}", *(f"{'':{len(start)}}  {line}" for line in more)]
    return lines


def _cells(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    if entry["error"]:
        return entry["name"], "", "", ""
    patch = " × ".join(str(n) for n in (*entry["patch_voxels"], entry["batch_size"]))
    return entry["name"], f"{entry['parameters'] / 1e6:.2f} M", f"{entry['memory_mb'] / 1024:.1f} GB", patch


def _needs(entry: dict[str, Any]) -> str:
    patch = " × ".join(str(n) for n in entry["patch_voxels"])
    return (
        f"{entry['parameters'] / 1e6:.2f} million parameters, {entry['memory_mb']} MB for a training step of "
        f"{entry['batch_size']} patches of {patch} voxels"
    )


def _as_json(entries: list[dict[str, Any]], sample: _Sample) -> int:
    print_json({"for": sample.in_words, "choices": entries})
    return 0


def _note(sample: _Sample) -> str:
    return (
        f"\nParameters and memory are for {sample.in_words} on this computer; napari-seg3d plan tells them for a "
        "dataset."
    )
