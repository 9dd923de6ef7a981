"""What a layout's reader finds, and how it becomes a dataset in order: names, editions, what does not agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from ..volumes.volume import LabelTable
from . import labels
from .case import CaseFiles, ImageFile
from .labels import Region
from .listing import Problem, read_json
from .names import MODALITIES, natural_key, patient_of

#: Which edition of BraTS a case belongs to, from its name. PEDs and others that changed their numbers stay unknown.
_EDITIONS: tuple[tuple[str, labels.Scheme], ...] = (
    (r"brats(1[789]|20|2021|21)_.*", labels.BRATS_2017_2022),
    (r"brats-gli-\d+-1\d\d", labels.BRATS_2024),  # visits after treatment are counted from 100
    (r"brats-men-rt-.*", labels.BRATS_MEN_RT),
    (r"brats-(gli|men|met|ssa)-\d+-0\d\d", labels.BRATS_2023),
)


@dataclass(frozen=True)
class Found:
    """What a layout's reader found. Without modalities or a table, `complete` finds them out."""

    layout: str
    cases: tuple[CaseFiles, ...]
    modalities: tuple[str, ...] = ()
    table: LabelTable = field(default_factory=LabelTable)
    regions: tuple[Region, ...] | None = None
    problems: tuple[Problem, ...] = ()


def complete(found: Found, root: Path) -> Found:
    """Put cases and modalities in order, give every case its patient and its labels, and report what does not agree.

    Label names come from where the layout has them, else from a ``labels.json``, else from the edition of BraTS that
    the case ids tell.
    """
    problems = list(found.problems)
    modalities = found.modalities or _usual_modalities(found.cases, problems)
    cases: dict[str, CaseFiles] = {}
    for case in sorted(found.cases, key=lambda case: natural_key(case.id)):
        first = next(iter(case.modalities.values())).path
        files = {name: case.modalities[name] for name in modalities if name in case.modalities}
        if missing := [name for name in modalities if name not in files]:
            problems.append(Problem(first, f"The case {case.id} has no {' and no '.join(missing)}.", "error"))
        if case.id in cases:
            problems.append(Problem(first, f"There are two cases {case.id}; this one is left out.", "error"))
        elif files:
            cases[case.id] = replace(case, modalities=files, patient=patient_of(case.id))
    table, regions = (found.table, found.regions) if len(found.table) else _names_beside(root)
    if not len(table):
        table = _table_of_edition(tuple(cases.values()), problems)
    named = tuple(replace(case, table=table) for case in cases.values())
    regions = regions or labels.regions_for(table)
    return Found(found.layout, named, tuple(modalities), table, regions, tuple(problems))


def told_apart(groups: Sequence[tuple[str, Sequence[CaseFiles]]]) -> tuple[CaseFiles, ...]:
    """Return all cases of named groups; where several have an id, the group's name is put before it."""
    count = Counter(case_id for _, cases in groups for case_id in {case.id for case in cases})
    return tuple(
        case if count[case.id] == 1 else replace(case, id=f"{name}_{case.id}")
        for name, cases in groups
        for case in cases
    )


def channel_names(count: int, known: Sequence[str] = ()) -> tuple[str, ...]:
    """Return names for the channels of a file: the known ones, and numbers for the others."""
    if count == 1 and not known:
        return ("image",)
    return (*known, *(f"channel {i}" for i in range(len(known), count)))


def in_one_file(path: Path, channels: Sequence[str]) -> dict[str, ImageFile]:
    """Where the modalities lie that one file holds."""
    if len(channels) == 1:
        return {channels[0]: ImageFile(path)}
    return {name: ImageFile(path, i) for i, name in enumerate(channels)}


def table_from_json(names: Mapping[str, Any], path: Path) -> tuple[LabelTable, tuple[Region, ...] | None]:
    """Return the labels, and the regions if some are declared, of a ``labels`` object in either spelling.

    The Decathlon writes ``{"1": "edema"}``, nnU-Net ``{"edema": 1}`` and, for regions, ``{"whole tumour": [1, 2, 3]}``;
    beside regions, a single number is a region too.

    Raises
    ------
    DatasetError
        If a value is no integer.
    """
    by_value: dict[int, str] = {}
    regions: dict[str, list[int]] = {}
    for key, value in names.items():
        try:
            if isinstance(value, list):
                regions[key] = [int(v) for v in value]
            elif isinstance(value, int):
                by_value[value] = key
            else:
                by_value[int(key)] = str(value)
        except (TypeError, ValueError) as error:
            raise DatasetError(f'The label "{key}": {value!r} in {path} is no integer with a name.') from error
    table = LabelTable.from_names(by_value)
    if not regions:
        return table, None
    regions |= {label.name: [label.value] for label in table}
    everything = table.covering(value for values in regions.values() for value in values)
    return everything, tuple(Region.named(name, values) for name, values in regions.items())


def _names_beside(root: Path) -> tuple[LabelTable, tuple[Region, ...] | None]:
    """The label names that ``labels.json`` tells, in the folder or, for a single case's folder, the one above."""
    path = root / "labels.json"
    if path.is_file():
        names = read_json(path).get("labels")
        if not isinstance(names, dict):
            raise DatasetError(f'Expected an object "labels" with a name for each value in {path}.')
        return table_from_json(names, path)
    above = root.parent / "labels.json"
    if above.is_file():
        # The folder above may be anybody's: a file of that name that is no such table is none of our business.
        try:
            names = read_json(above).get("labels")
            return table_from_json(names, above) if isinstance(names, dict) else (LabelTable(), None)
        except DatasetError:
            return LabelTable(), None
    return LabelTable(), None


def _usual_modalities(cases: Sequence[CaseFiles], problems: list[Problem]) -> tuple[str, ...]:
    """The modalities that at least half of the cases have; a rarer one is a problem, else no case would be complete."""
    count = Counter(name for case in cases for name in case.modalities)
    known = [name for name in MODALITIES if name in count]
    ordered = [*known, *(name for name in count if name not in known)]
    for name in ordered:
        if 2 * count[name] < len(cases):
            example = next(case for case in cases if name in case.modalities)
            message = f"Only {count[name]} of {len(cases)} cases have {name}, for example {example.id}; it is left out."
            problems.append(Problem(example.modalities[name].path, message))
    return tuple(name for name in ordered if 2 * count[name] >= len(cases))


def _table_of_edition(cases: Sequence[CaseFiles], problems: list[Problem]) -> LabelTable:
    """The labels of the edition of BraTS that all labelled cases belong to, else an empty table."""
    truths = {case.truth: _edition(case.id, case.truth) for case in cases if case.truth is not None}
    schemes = set(truths.values())
    if len(schemes) > 1:
        titles = ", ".join(sorted(scheme.title if scheme else "unknown" for scheme in schemes))
        message = f"The label files follow different schemes ({titles}): open them separately."
        problems.append(Problem(next(iter(truths)), message, "error"))
        return LabelTable()
    scheme = next(iter(schemes), None)
    return LabelTable() if scheme is None else scheme.table


def _edition(case_id: str, truth: Path) -> labels.Scheme | None:
    if re.search(r"otmulticlass|\.ot\.", truth.name, re.IGNORECASE):
        return labels.BRATS_2012_2016
    for pattern, scheme in _EDITIONS:
        if re.fullmatch(pattern, case_id, re.IGNORECASE):
            return scheme
    return None
