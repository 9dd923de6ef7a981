"""Datasets that no reader knows: the user says with name patterns what is what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import DatasetError
from .case import CaseFiles, ImageFile
from .found import Found, complete
from .listing import Problem, walk

CASE = "{case}"


def read_by_patterns(root: Path, patterns: Mapping[str, str]) -> Found:
    """Return the cases of a tree in which patterns tell the files apart.

    Parameters
    ----------
    root : Path
    patterns : mapping of str to str
        For each modality, and if wanted for ``"truth"`` and ``"mask"``, a glob: ``"*_flair.nii.gz"`` is compared with
        the file names in each case's folder. Where cases share a folder, write the path below `root` with ``{case}``
        for the case id instead: ``"images/{case}_0000.nii.gz"``. Upper and lower case are one.

    Raises
    ------
    DatasetError
        If there is no pattern for a modality, some have ``{case}`` and some not, or one matches no file.
    """
    modalities = [name for name in patterns if name not in ("truth", "mask")]
    by_path = {CASE in pattern for pattern in patterns.values()}
    if not modalities or len(by_path) > 1:
        raise DatasetError(f"Expected patterns for at least one modality, with {CASE} in all of them or in none.")
    problems: list[Problem] = []
    cases: dict[str, CaseFiles] = {}
    compiled = {name: _compiled(pattern) for name, pattern in patterns.items()}
    matched = dict.fromkeys(patterns, 0)
    for folder in walk(root, problems):
        for file in folder.images:
            path = folder.path / file
            for name, pattern in compiled.items():
                text = path.relative_to(root).as_posix() if by_path == {True} else file
                if found := pattern.fullmatch(text):
                    matched[name] += 1
                    case_id = found["case"] if by_path == {True} else folder.path.name
                    case = cases.get(case_id, CaseFiles(case_id, {}))
                    cases[case_id] = _with_file(case, name, path, problems)
    if unmatched := [f"{patterns[name]} ({name})" for name, n in matched.items() if n == 0]:
        raise DatasetError(f"No image file in {root} matches the pattern {' or '.join(unmatched)}.")
    found_cases = [case for case in cases.values() if case.modalities]
    problems += [
        Problem(
            case.truth or case.mask or root, f"The case {case.id} matches no pattern of a modality and is left out."
        )
        for case in cases.values()
        if not case.modalities
    ]
    return complete(Found("by patterns", tuple(found_cases), tuple(modalities), problems=tuple(problems)), root)


def _compiled(pattern: str) -> re.Pattern[str]:
    wild = {"*": "[^/]*", "?": "[^/]"}
    parts = ["".join(wild.get(c, re.escape(c)) for c in part) for part in pattern.split(CASE, 1)]
    return re.compile("(?P<case>[^/]+)".join(parts), re.IGNORECASE)


def _with_file(case: CaseFiles, name: str, path: Path, problems: list[Problem]) -> CaseFiles:
    taken = {"truth": case.truth, "mask": case.mask}.get(name) or case.modalities.get(name)
    if taken is not None:
        problems.append(
            Problem(path, f"A second file of the case {case.id} matches the pattern of {name} and is left out.")
        )
        return case
    if name == "truth":
        return replace(case, truth=path)
    if name == "mask":
        return replace(case, mask=path)
    return replace(case, modalities={**case.modalities, name: ImageFile(path)})
