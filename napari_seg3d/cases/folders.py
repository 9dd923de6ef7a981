"""Trees in which each folder is a case, and folders full of single images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..volumes.files import strip_suffix
from .case import CaseFiles, ImageFile
from .found import Found, complete, told_apart
from .listing import Folder, Problem, unreadable_problem, walk
from .names import FileName, natural_key, read_name


def case_folders(root: Path) -> Found | None:
    """Return the cases of a tree in which each folder with images is one, at any depth; or those of a single folder."""
    problems: list[Problem] = []
    seen = list(walk(root, problems))
    folders = [folder for folder in seen if folder.images]
    groups = [(f.path.parent.name, _folder_cases(f, len(folders) == 1, problems)) for f in folders]
    cases = told_apart(groups)
    if not cases:
        return None
    problems += unreadable_problem(root, [name for folder in seen for name in folder.unreadable])
    layout = "one folder per case"
    if len(folders) == 1:
        layout = "one case folder" if len(cases) == 1 else "image files"
    return complete(Found(layout, cases, problems=tuple(problems)), root)


def _folder_cases(folder: Folder, alone: bool, problems: list[Problem]) -> list[CaseFiles]:
    """Return the case that a folder is, or the cases whose files lie side by side in it."""
    names = {name: read_name(strip_suffix(name)) for name in folder.images}
    by_case = {folder.path.name: names}
    if _are_several_cases(names, alone):
        by_case = {}
        for file in sorted(names, key=lambda file: natural_key(names[file].rest)):
            by_case.setdefault(names[file].rest or folder.path.name, {})[file] = names[file]
    cases = (_one_case(case_id, folder.path, files, problems) for case_id, files in by_case.items())
    return [case for case in cases if case is not None]


def _are_several_cases(names: dict[str, FileName], alone: bool) -> bool:
    """Whether a modality comes twice, or the only folder holds images of any name and perhaps their label files."""
    modalities = Counter(name.modality for name in names.values() if name.kind == "image")
    images = {name.rest for name in names.values() if name.kind == "unknown"}
    others = {name.rest for name in names.values() if name.kind != "unknown"}
    return max(modalities.values(), default=0) > 1 or (alone and len(images) > 1 and others <= images)


def _one_case(case_id: str, folder: Path, names: dict[str, FileName], problems: list[Problem]) -> CaseFiles | None:
    """Return the case that files make up, or None if no image is among them; files without a part are problems."""
    of_kind = {kind: [file for file in names if names[file].kind == kind] for kind in ("truth", "mask", "either")}
    # "mask" alone is what many call the truth; beside a truth it is the outline of the organ.
    of_kind["mask" if of_kind["truth"] else "truth"] += of_kind["either"]
    truth, mask = (next(iter(of_kind[kind]), None) for kind in ("truth", "mask"))
    images = _images(names)
    if not images:
        message = f"No file of the case {case_id} is named like a modality ({', '.join(names)}), so it is left out."
        problems.append(Problem(folder / next(iter(names)), f"{message} Give name patterns.", "error"))
        return None
    for file in [file for file in names if file not in {*images.values(), truth, mask}]:
        part = names[file].modality or {"truth": "truth", "either": "mask", "mask": "mask"}.get(names[file].kind)
        why = f"another file is its {part}" if part else "its name tells no modality"
        problems.append(Problem(folder / file, f"This file of the case {case_id} is left out: {why}."))
    rests = {names[file].rest for file in images.values()}
    if truth is not None and len(rests) == 1 and all(rests) and names[truth].rest not in rests | {""}:
        message = f"This label file is not named like the images of the case {case_id}; as the only one it is taken."
        problems.append(Problem(folder / truth, message))
    files = {modality: ImageFile(folder / file) for modality, file in images.items()}
    return CaseFiles(case_id, files, None if truth is None else folder / truth, None if mask is None else folder / mask)


def _images(names: dict[str, FileName]) -> dict[str, str]:
    """Modality -> file; the first file of each. A single file whose name tells nothing is the image."""
    found: dict[str, str] = {}
    for file, name in names.items():
        if name.kind == "image":
            found.setdefault(name.modality, file)
    unknown = [file for file, name in names.items() if name.kind == "unknown"]
    return {"image": unknown[0]} if not found and len(unknown) == 1 else found
