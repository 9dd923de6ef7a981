"""The folder layouts of the field, recognised by what lies where. No voxel is read here, and hardly a header.

Each reader takes a folder and returns what it `Found`, or None if the folder is not laid out its way. Files are paired
by case id, never by their place in a list; whatever fits nowhere is a `Problem`, not a guess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from ..volumes.files import inspect_file, strip_suffix
from ..volumes.volume import LabelTable
from . import labels
from .case import CaseFiles, ImageFile
from .labels import Region
from .listing import Folder, Problem, is_image, list_folder, read_json, unreadable_problem, walk
from .names import MODALITIES, FileName, natural_key, patient_of, read_name

UNDERSTOOD = (
    "a Decathlon or nnU-Net tree with dataset.json; folders images/ and labels/ (or imagesTr/ and labelsTr/) with "
    "equal file names; one folder per case whose files name their modality (…_flair, …_t1, …_t1ce, …_t2, …_seg); "
    "a single case folder; NIfTI files"
)
IMAGE_FOLDERS = ("images", "imagestr", "image", "imgs", "img")
TEST_FOLDERS = ("imagests", "imagesval")
LABEL_FOLDERS = (
    "labels", "labelstr", "label", "segmentations", "segmentation", "annotations", "truth", "groundtruth", "gt",
    "masks", "mask",
)  # fmt: skip

#: Which edition of BraTS a case belongs to, from its name. PEDs and others that changed their numbers stay unknown.
_EDITIONS: tuple[tuple[str, labels.Scheme], ...] = (
    (r"brats(1[789]|20|2021|21)_.*", labels.BRATS_2017_2022),
    (r"brats-gli-\d+-1\d\d", labels.BRATS_2024),  # visits after treatment are counted from 100
    (r"brats-men-rt-.*", labels.BRATS_MEN_RT),
    (r"brats-(gli|men|met|ssa)-\d+-0\d\d", labels.BRATS_2023),
)


@dataclass(frozen=True)
class Found:
    """What a layout's reader found. Modalities and label names are in the order of display."""

    layout: str
    cases: tuple[CaseFiles, ...]
    modalities: tuple[str, ...]
    table: LabelTable
    problems: tuple[Problem, ...] = ()
    regions: tuple[Region, ...] | None = None


def recognise(root: Path) -> Found | None:
    """Return what the first reader that knows the layout found in a folder, or None."""
    for reader in _READERS:
        found = reader(root)
        if found is not None and found.cases:
            return found
    return None


# --- dataset.json -----------------------------------------------------------------------------------------------------


def decathlon(root: Path) -> Found | None:
    """Read a tree with ``dataset.json``: the Medical Segmentation Decathlon's, or nnU-Net's raw folders.

    Raises
    ------
    DatasetError
        If dataset.json is damaged or names no modalities or labels.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return None
    facts = read_json(path)
    channels = facts.get("modality", facts.get("channel_names"))
    names = facts.get("labels")
    if not isinstance(channels, dict) or not channels or not isinstance(names, dict):
        raise DatasetError(f'Expected "modality" (or "channel_names") and "labels" in {path}, each an object of names.')
    modalities = _unique([str(name) for _, name in sorted(channels.items(), key=lambda item: natural_key(item[0]))])
    table, regions = table_from_json(names, path)
    problems: list[Problem] = []
    if isinstance(facts.get("training"), list):
        cases = _listed_cases(root, facts, modalities, problems)
        layout = "Decathlon"
    else:
        cases = _paired_cases(root, list_folder(root), problems, modalities)
        layout = "nnU-Net raw"
    return complete(Found(layout, tuple(cases), modalities, table, tuple(problems), regions), root)


def table_from_json(names: Mapping[str, Any], path: Path) -> tuple[LabelTable, tuple[Region, ...] | None]:
    """Return the labels, and the regions if some are declared, of a ``labels`` object in either spelling.

    The Decathlon writes ``{"1": "edema"}``, nnU-Net ``{"edema": 1}`` and, for regions, ``{"whole tumour": [1, 2, 3]}``.

    Raises
    ------
    DatasetError
        If a value is no integer.
    """
    by_value: dict[int, str] = {}
    regions: list[Region] = []
    for key, value in names.items():
        try:
            if isinstance(value, list):
                regions.append(Region.named(key, [int(v) for v in value]))
            elif isinstance(value, int):
                by_value[value] = key
            else:
                by_value[int(key)] = str(value)
        except (TypeError, ValueError) as error:
            raise DatasetError(f'The label "{key}": {value!r} in {path} is no integer with a name.') from error
    table = LabelTable.from_names(by_value)
    return table.covering(v for region in regions for v in region.values), tuple(regions) or None


def _listed_cases(
    root: Path, facts: Mapping[str, Any], modalities: Sequence[str], problems: list[Problem]
) -> list[CaseFiles]:
    """Return the cases of the lists ``training`` and ``test``; files that no list names are problems."""
    present = _Present()
    cases: dict[str, CaseFiles] = {}
    named: set[Path] = set()
    tests = facts.get("test")
    for entry in [*facts["training"], *(tests if isinstance(tests, list) else [])]:
        image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (entry, None)
        if not isinstance(image, str) or not (label is None or isinstance(label, str)):
            problems.append(
                Problem(root / "dataset.json", f"Expected an image and a label in the entry {entry!r}.", "error")
            )
            continue
        if Path(image).name.startswith((".", "_")):
            continue
        path = root / image
        files = _channels(path, modalities, present)
        named.update(file.path for file in files.values())
        missing = [file.path for file in files.values() if file.path not in present]
        truth = None if label is None else root / label
        if truth is not None:
            named.add(truth)
        if missing:
            problems.append(
                Problem(
                    missing[0], "dataset.json lists this image, but it is not there. The case is left out.", "error"
                )
            )
            continue
        if truth is not None and truth not in present:
            problems.append(
                Problem(
                    truth, "dataset.json lists this label file, but it is not there. The case has no truth.", "error"
                )
            )
            truth = None
        case_id = strip_suffix(path)
        if label is not None and case_id == f"{strip_suffix(root / label)}_0000":
            case_id = case_id.removesuffix("_0000")
        if case_id in cases:
            problems.append(
                Problem(path, f"dataset.json lists the case {case_id} twice. The first entry counts.", "warning")
            )
        else:
            cases[case_id] = CaseFiles(case_id, files, truth)
    for folder in sorted({path.parent for path in named}):
        for name in present.names(folder):
            if is_image(name) and not name.startswith((".", "_")) and folder / name not in named:
                problems.append(Problem(folder / name, "This file is in no list of dataset.json and is left out."))
    return list(cases.values())


class _Present:
    """Which files are there: one listing per folder instead of a question per file."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def names(self, folder: Path) -> list[str]:
        if folder not in self._names:
            self._names[folder] = frozenset(p.name for p in folder.iterdir()) if folder.is_dir() else frozenset()
        return sorted(self._names[folder], key=natural_key)

    def __contains__(self, path: Path) -> bool:
        if path.parent not in self._names:
            self.names(path.parent)
        return path.name in self._names[path.parent]


def _channels(path: Path, modalities: Sequence[str], present: _Present) -> dict[str, ImageFile]:
    """Where the modalities of a listed image lie: channels of one file, or nnU-Net's files ``…_0000``, ``…_0001``."""
    stem = strip_suffix(path)
    parts = [path.with_name(f"{stem}_{i:04d}{path.name[len(stem) :]}") for i in range(len(modalities))]
    if path not in present and parts[0] in present:
        return {name: ImageFile(part) for name, part in zip(modalities, parts, strict=True)}
    if len(modalities) == 1:
        return {modalities[0]: ImageFile(path)}
    return {name: ImageFile(path, i) for i, name in enumerate(modalities)}


# --- images/ and labels/ ----------------------------------------------------------------------------------------------


def images_and_labels(root: Path) -> Found | None:
    """Read a tree with ``images/`` and perhaps ``labels/``, or with such trees below it (``train/``, ``test/``)."""
    top = list_folder(root)
    parts = [top] if _named(top, IMAGE_FOLDERS + TEST_FOLDERS) else [list_folder(root / name) for name in top.folders]
    parts = [part for part in parts if _named(part, IMAGE_FOLDERS + TEST_FOLDERS)]
    if not parts:
        return None
    problems: list[Problem] = []
    groups = [(part.path.name, _paired_cases(part.path, part, problems, ())) for part in parts]
    cases = tuple(_told_apart(groups))
    return complete(Found("images and labels", cases, (), LabelTable(), tuple(problems)), root)


def _named(folder: Folder, wanted: Iterable[str]) -> list[str]:
    """The sub-folders of these names in the order of `wanted`; upper and lower case are one."""
    by_name = {name.lower(): name for name in folder.folders}
    return [by_name[name] for name in wanted if name in by_name]


def _paired_cases(root: Path, top: Folder, problems: list[Problem], modalities: Sequence[str]) -> list[CaseFiles]:
    """Pair the files of image folders with those of the label folder by name."""
    label_folders = _named(top, LABEL_FOLDERS)
    truths: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for found, names in zip((truths, masks), label_folders, strict=False):
        folder = list_folder(root / names)
        problems += unreadable_problem(folder.path, list(folder.unreadable))
        found.update({strip_suffix(name): folder.path / name for name in folder.images})
    cases: list[CaseFiles] = []
    for name in _named(top, IMAGE_FOLDERS + TEST_FOLDERS):
        folder = list_folder(root / name)
        problems += unreadable_problem(folder.path, list(folder.unreadable))
        expected = bool(truths) and name.lower() in IMAGE_FOLDERS
        for case_id, files in _by_case(folder, set(truths), modalities):
            truth = _take(truths, case_id)
            if truth is None and expected:
                problems.append(Problem(next(iter(files.values())).path, f"The case {case_id} has no label file."))
            cases.append(CaseFiles(case_id, files, truth, _take(masks, case_id)))
    for path in (*truths.values(), *masks.values()):
        problems.append(Problem(path, "This label file belongs to no image and is left out."))
    return cases


def _take(paths: dict[str, Path], case_id: str) -> Path | None:
    """Take a case's label file out of those that are left: of the same name, or with a word such as ``_seg`` added."""
    if case_id in paths:
        return paths.pop(case_id)
    for stem in [stem for stem in paths if stem.startswith(case_id)]:
        name = read_name(stem)
        if name.kind in ("truth", "either", "mask") and name.rest == case_id:
            return paths.pop(stem)
    return None


def _by_case(folder: Folder, truths: set[str], modalities: Sequence[str]) -> list[tuple[str, dict[str, ImageFile]]]:
    """Group the images of a folder into cases: one file each, or one per modality (``_0000`` or ``_flair``)."""
    stems = {strip_suffix(name): folder.path / name for name in folder.images}
    numbered = {stem: re.fullmatch(r"(.+)_(\d{4})", stem) for stem in stems}
    if not truths & stems.keys():
        firsts = {match[1] for match in numbered.values() if match and match[2] == "0000"}
        if stems and all(match and match[1] in firsts for match in numbered.values()):
            parts = [(match[1], int(match[2]), stem) for stem, match in numbered.items() if match]
            names = _channel_names(max(channel for _, channel, _ in parts) + 1, modalities)
            return _grouped((case_id, names[channel], ImageFile(stems[stem])) for case_id, channel, stem in parts)
        words = {stem: read_name(stem) for stem in stems}
        if len({word.modality for word in words.values()}) > 1 and all(w.kind == "image" for w in words.values()):
            return _grouped((word.rest, word.modality, ImageFile(stems[stem])) for stem, word in words.items())
    channels = _first_channels(list(stems.values()), modalities)
    return [(stem, _one_file(path, channels)) for stem, path in stems.items()]


def _first_channels(paths: Sequence[Path], modalities: Sequence[str]) -> tuple[str, ...]:
    """What the channels of a folder's files are called: as told, else as many as the first file's header says."""
    if modalities or not paths:
        return tuple(modalities)
    return _channel_names(inspect_file(paths[0]).channels, ())


def _channel_names(count: int, known: Sequence[str]) -> tuple[str, ...]:
    if count == 1 and not known:
        return ("image",)
    return (*known, *(f"channel {i}" for i in range(len(known), count)))


def _one_file(path: Path, channels: Sequence[str]) -> dict[str, ImageFile]:
    if len(channels) == 1:
        return {channels[0]: ImageFile(path)}
    return {name: ImageFile(path, i) for i, name in enumerate(channels)}


def _grouped(parts: Iterable[tuple[str, str, ImageFile]]) -> list[tuple[str, dict[str, ImageFile]]]:
    cases: dict[str, dict[str, ImageFile]] = {}
    for case_id, modality, file in parts:
        cases.setdefault(case_id, {})[modality] = file
    return list(cases.items())


# --- one folder per case ----------------------------------------------------------------------------------------------


def case_folders(root: Path) -> Found | None:
    """Read a tree in which each folder with images is a case, at any depth; or a folder full of single images."""
    problems: list[Problem] = []
    unreadable: list[str] = []
    folders: list[Folder] = []
    for folder in walk(root, problems):
        unreadable += folder.unreadable
        if folder.images:
            folders.append(folder)
    groups = [(f.path.parent.name, _folder_cases(f, len(folders) == 1, problems)) for f in folders]
    if not any(cases for _, cases in groups):
        return None
    problems += unreadable_problem(root, unreadable)
    layout = (
        "one folder per case" if len(groups) > 1 else "one case folder" if len(groups[0][1]) == 1 else "image files"
    )
    return complete(Found(layout, tuple(_told_apart(groups)), (), LabelTable(), tuple(problems)), root)


def _folder_cases(folder: Folder, alone: bool, problems: list[Problem]) -> list[CaseFiles]:
    """Return the case that a folder is, or the cases whose files lie side by side in it."""
    names = [(name, read_name(strip_suffix(name))) for name in folder.images]
    modalities = Counter(name.modality for _, name in names if name.kind == "image")
    images = {name.rest for _, name in names if name.kind == "unknown"}
    others = {name.rest for _, name in names if name.kind != "unknown"}
    # Files of several cases: a modality comes twice, or they are all images with nothing or only their label files
    # beside.
    several = max(modalities.values(), default=0) > 1
    if not several and not (alone and len(images) > 1 and others <= images):
        cases = [_one_case(folder.path.name, folder.path, names, problems)]
    else:
        ordered = sorted(names, key=lambda item: natural_key(item[1].rest))
        cases = [
            _one_case(rest or folder.path.name, folder.path, list(files), problems)
            for rest, files in groupby(ordered, key=lambda item: item[1].rest)
        ]
    return [case for case in cases if case is not None]


def _one_case(
    case_id: str, folder: Path, names: list[tuple[str, FileName]], problems: list[Problem]
) -> CaseFiles | None:
    by_kind: dict[str, list[tuple[str, FileName]]] = {
        kind: [] for kind in ("image", "truth", "mask", "either", "unknown")
    }
    for item in names:
        by_kind[item[1].kind].append(item)
    files = {name.modality: ImageFile(folder / file) for file, name in reversed(by_kind["image"])}
    if not files and len(by_kind["unknown"]) == 1:
        files = {"image": ImageFile(folder / by_kind["unknown"].pop()[0])}
    # "mask" alone is what many call the truth; beside a truth it is the outline of the organ.
    by_kind["mask" if by_kind["truth"] else "truth"] += by_kind["either"]
    chosen = {id(by_kind[kind][0]) for kind in ("truth", "mask") if by_kind[kind]}
    chosen |= {id(item) for item in by_kind["image"] if files[item[1].modality].path == folder / item[0]}
    left_out = [
        item for kind in ("image", "truth", "mask", "unknown") for item in by_kind[kind] if id(item) not in chosen
    ]
    if not files:
        listed = ", ".join(file for file, _ in names)
        message = (
            f"No file of the case {case_id} is named like a modality ({listed}), so it is left out. Give name patterns."
        )
        problems.append(Problem(folder / names[0][0], message, "error"))
        return None
    for file, name in left_out:
        why = (
            "another file is its " + (name.modality or name.kind)
            if name.kind != "unknown"
            else "its name says no modality"
        )
        problems.append(Problem(folder / file, f"This file of the case {case_id} is left out: {why}."))
    truth, mask = (folder / by_kind[kind][0][0] if by_kind[kind] else None for kind in ("truth", "mask"))
    rests = {name.rest for _, name in by_kind["image"]}
    if truth is not None and len(rests) == 1 and by_kind["truth"][0][1].rest not in rests | {""} and rests != {""}:
        message = f"This label file is not named like the images of the case {case_id}; as the only one it is taken."
        problems.append(Problem(truth, message))
    return CaseFiles(case_id, files, truth, mask)


# --- common -----------------------------------------------------------------------------------------------------------


def single_file(path: Path) -> Found:
    """Return one image file as a dataset of one unlabelled case."""
    name = read_name(strip_suffix(path))
    count = inspect_file(path).channels
    channels = (name.modality,) if count == 1 and name.kind == "image" else _channel_names(count, ())
    case = CaseFiles(strip_suffix(path), _one_file(path, channels))
    return complete(Found("one file", (case,), channels, LabelTable()), path.parent)


def _told_apart(groups: Sequence[tuple[str, Sequence[CaseFiles]]]) -> list[CaseFiles]:
    """All cases of named groups; where an id comes twice, the group's name is put before it."""
    count = Counter(case.id for _, cases in groups for case in cases)
    return [
        case if count[case.id] == 1 else replace(case, id=f"{name}_{case.id}")
        for name, cases in groups
        for case in cases
    ]


def _names_beside(root: Path) -> tuple[LabelTable, tuple[Region, ...] | None]:
    """The label names that ``labels.json`` tells, in the folder or the one above; nothing if there is none."""
    for folder in (root, root.parent):
        if (path := folder / "labels.json").is_file():
            names = read_json(path).get("labels")
            if not isinstance(names, dict):
                raise DatasetError(f'Expected an object "labels" with a name for each value in {path}.')
            return table_from_json(names, path)
    return LabelTable(), None


def complete(found: Found, root: Path) -> Found:
    """Put cases and modalities in order, give every case its patient and its labels, and report what does not agree.

    Label names come from where the layout has them, else from a ``labels.json``, else from the edition of BraTS that
    the case ids tell.
    """
    problems = list(found.problems)
    modalities = found.modalities or _usual_modalities(found.cases, problems)
    cases = []
    for case in sorted(found.cases, key=lambda case: natural_key(case.id)):
        files = {name: case.modalities[name] for name in modalities if name in case.modalities}
        missing = [name for name in modalities if name not in files]
        if missing:
            where = next(iter(case.modalities.values())).path
            problems.append(Problem(where, f"The case {case.id} has no {' and no '.join(missing)}.", "error"))
        if files:
            cases.append(replace(case, modalities=files, patient=patient_of(case.id)))
    table, regions = (found.table, found.regions) if len(found.table) else _names_beside(root)
    if not len(table):
        table = _table_of_edition(cases, problems)
    cases = [replace(case, table=table) for case in cases]
    regions = regions or labels.regions_for(table)
    return Found(found.layout, tuple(cases), tuple(modalities), table, tuple(problems), regions)


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
    schemes = {_edition(case) for case in cases if case.truth is not None}
    if len(schemes) == 1 and (scheme := schemes.pop()) is not None:
        return scheme.table
    if len(schemes) > 1:
        titles = ", ".join(sorted(scheme.title if scheme else "unknown" for scheme in schemes))
        first = next(case.truth for case in cases if case.truth is not None)
        problems.append(
            Problem(first, f"The label files follow different schemes ({titles}): open them separately.", "error")
        )
    return LabelTable()


def _edition(case: CaseFiles) -> labels.Scheme | None:
    if case.truth is None:
        return None
    if re.search(r"otmulticlass|\.ot\.", case.truth.name, re.IGNORECASE):
        return labels.BRATS_2012_2016
    for pattern, scheme in _EDITIONS:
        if re.fullmatch(pattern, case.id, re.IGNORECASE):
            return scheme
    return None


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number added where they come twice: Decathlon calls several channels "MRI" in places."""
    return tuple(name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names))


_READERS: tuple[Callable[[Path], Found | None], ...] = (decathlon, images_and_labels, case_folders)
