"""What a file's name says: which modality it is, or that it is the truth or a mask; and how names are put in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "truth", "mask", "either", "unknown"]

#: How the field writes a modality (lower case, ``_`` for any separator). A longer spelling is tried before a shorter
#: one; the order is that of display.
MODALITIES: Mapping[str, tuple[str, ...]] = {
    "FLAIR": ("flair", "t2f", "t2_flair", "t2flair", "flairreg", "flair_reg", "dark_fluid"),
    "T1": ("t1", "t1n", "t1w", "t1pre", "t1_pre", "t1prereg", "t1reg"),
    "T1c": (
        "t1c", "t1ce", "t1_ce", "t1gd", "t1_gd", "t1post", "t1_post", "t1contrast", "t1_contrast", "t1km",
        "ce_gadolinium_t1w", "ce_gd_t1w",
    ),
    "T2": ("t2", "t2w", "t2reg"),
    "IR": ("ir", "t1_ir", "reg_ir"),
    "PD": ("pd", "pdw"),
    "DWI": ("dwi",),
    "ADC": ("adc",),
    "SWI": ("swi",),
}  # fmt: skip
TRUTH = (
    "seg", "segm", "dseg", "segmentation", "label", "labels", "labelmap", "truth", "gt", "groundtruth", "ground_truth",
    "otmulticlass", "ot", "gtv", "annotation",
)  # fmt: skip
MASK = ("brainmask", "brain_mask", "bet_mask", "mask_brain", "headmask", "head_mask")
#: Some call the truth so, some the outline of the organ: the other files of the case decide.
EITHER = ("mask",)

_PATIENTS = (
    re.compile(r"(BraTS-[A-Z-]+-\d{4,5})-\d{3}", re.IGNORECASE),  # BraTS 2023 and later: the last number is the visit
    re.compile(r"(brats\d*_(?:2013|tcia|cbica|aab|tmc)\d*_(?:pat)?[a-z0-9]+)_\d+", re.IGNORECASE),  # 2013 to 2019
    re.compile(r"(sub-[a-z0-9]+)_ses-.+", re.IGNORECASE),  # BIDS
)


@dataclass(frozen=True)
class FileName:
    """What a file's name says: its kind, its modality if it is an image, and what is left without that word."""

    kind: Kind
    modality: str
    rest: str


def read_name(stem: str) -> FileName:
    """Return what the name of an image file (without its ending) says.

    Words count only between separators, in any case; the longest wins, then the last. A word for the truth or a mask
    outweighs one for a modality: ``t1_brainmask`` is a mask.

    Examples
    --------
    >>> read_name("BraTS20_Training_001_t1ce")
    FileName(kind='image', modality='T1c', rest='BraTS20_Training_001')
    >>> read_name("W39_1998.09.19_Segm").kind
    'truth'
    """
    plain = "_" + "".join(c.lower() if c.isascii() and c.isalnum() else "_" for c in stem) + "_"
    for kind, words in _WORDS:
        for word, modality in words:
            if (at := plain.rfind(f"_{word}_")) >= 0:
                rest = stem[:at].rstrip("_-. ") + stem[at + len(word) :]
                return FileName(kind, modality, rest.strip("_-. "))
    return FileName("unknown", "", stem)


def modality_of(name: str) -> str | None:
    """Return our name for what a dataset calls a modality: ``"t1gd"`` is ``"T1c"``; None if it is none we know."""
    found = read_name(name)
    return found.modality if found.kind == "image" else None


def patient_of(case_id: str) -> str:
    """Return the patient of a case: its id without the visit where the id is known to tell it, else the id.

    Examples
    --------
    >>> patient_of("BraTS-GLI-00008-101"), patient_of("brats_2013_pat0001_1"), patient_of("hippocampus_003")
    ('BraTS-GLI-00008', 'brats_2013_pat0001', 'hippocampus_003')
    """
    for pattern in _PATIENTS:
        if found := pattern.fullmatch(case_id):
            return found[1]
    return case_id


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Key to sort names as people count: 1, 2, 10.

    Examples
    --------
    >>> sorted(["case10", "case2", "Case1"], key=natural_key)
    ['Case1', 'case2', 'case10']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part.lower()) for part in parts)


def _longest_first(words: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(words, key=lambda word: -len(word[0])))


def _spellings() -> Iterator[tuple[str, str]]:
    for modality, words in MODALITIES.items():
        yield from ((word, modality) for word in words)


_WORDS: tuple[tuple[Kind, tuple[tuple[str, str], ...]], ...] = (
    ("mask", _longest_first((word, "") for word in MASK)),
    ("truth", _longest_first((word, "") for word in TRUTH)),
    ("either", _longest_first((word, "") for word in EITHER)),
    ("image", _longest_first(_spellings())),
)
