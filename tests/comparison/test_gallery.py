"""The articles' figures as files: which cases, whole PNG files, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from napari_seg3d.comparison.canvas import png_bytes
from napari_seg3d.comparison.gallery import KINDS, Choice, Material, draw, draw_cases
from napari_seg3d.comparison.panel_figures import truth_is_first
from napari_seg3d.errors import DatasetError, Seg3dError
from napari_seg3d.events import Finished, Saved, result_of
from napari_seg3d.volumes.files import write_volume
from napari_seg3d.volumes.volume import LabelMap, Volume

from .conftest import nested_labels, oblique_geometry, write_labels


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A dataset of two cases with images, and predictions beside it."""
    rng = np.random.default_rng(0)
    for case in ("a", "b"):
        image = Volume(rng.normal(100, 9, nested_labels().shape).astype(np.float32), oblique_geometry())
        for folder in ("images", "labels"):
            (tmp_path / "study" / folder).mkdir(parents=True, exist_ok=True)
        write_volume(tmp_path / "study" / "images" / f"{case}.nii.gz", image)
        write_labels(tmp_path / "study" / "labels" / f"{case}.nii.gz", nested_labels())
        write_labels(tmp_path / "predictions" / f"{case}.nii.gz", np.roll(nested_labels(), 1, 0))
    return tmp_path / "study"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("panels", "confusion", "blind")])
def test_every_kind_is_a_picture_of_each_case(kind: str, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    events = list(draw_cases(Choice(kind), study.with_name("predictions"), study, out))
    assert isinstance(events[-1], Finished), events[-1]
    assert list(events[-1].result) == [out / "a.png", out / "b.png"]
    assert [event.path for event in events if isinstance(event, Saved)] == list(events[-1].result)
    assert imread(out / "a.png").shape[2] in (3, 4)


def test_panels_need_no_prediction_and_a_file_holds_one_figure(study: Path, tmp_path: Path) -> None:
    one = tmp_path / "one.png"
    written = result_of(draw_cases(Choice("panels", plane="coronal", all_planes=False), None, study, one, cases=["b"]))
    assert list(written) == [one]
    with pytest.raises(Seg3dError, match="2 cases do not fit into one picture"):
        result_of(draw_cases(Choice("slices"), study.with_name("predictions"), study, one))


def test_the_answer_of_a_blind_test_is_another_file(study: Path, tmp_path: Path) -> None:
    written = result_of(draw_cases(Choice("blind", seed=3), study.with_name("predictions"), study, tmp_path / "out"))
    assert [path.name for path in written] == ["a.png", "a.answer.png", "b.png", "b.answer.png"]
    for path, letter in written.items():
        assert letter == ("A" if truth_is_first(path.name[0], 3) else "B")
    first, answer = (tmp_path / "out" / name for name in ("a.png", "a.answer.png"))
    assert first.read_bytes() != answer.read_bytes()


def test_confusion_is_one_picture_of_all_cases(study: Path, tmp_path: Path) -> None:
    written = result_of(draw_cases(Choice("confusion"), study.with_name("predictions"), study, tmp_path / "out"))
    assert [path.name for path in written] == ["confusion.png"]


def test_wishes_that_cannot_be_met_are_answered_with_what_there_is(
    study: Path, tmp_path: Path, predicted: LabelMap, truth: LabelMap
) -> None:
    predictions, out = study.with_name("predictions"), tmp_path / "out"
    for choice, cases, words in (
        (Choice("slices"), ["c"], "nothing to draw of c; there is a, b"),
        (Choice("slices", structure="liver"), [], "no label liver; there are label 1, label 2, label 3"),
        (Choice("slices", modality="T9"), [], "no modality T9"),
        (Choice("slices", slices=(500,)), [], "no axial slice 500"),
    ):
        with pytest.raises(Seg3dError, match=words):
            result_of(draw_cases(choice, predictions, study, out, cases=cases))
    assert not out.exists()
    with pytest.raises(DatasetError, match="needs a prediction and a truth"):
        draw(Choice("overview"), Material("x", None, truth, {}))
    with pytest.raises(DatasetError, match="no image for the panels"):
        draw(Choice("panels"), Material("x", predicted, truth, {}))


def test_a_structure_is_found_by_its_name(predicted: LabelMap, truth: LabelMap) -> None:
    material = Material("x", predicted, truth, {})
    by_name = draw(Choice("slices", structure="OEDEMA", slices=(4,)), material)
    assert "oedema" in by_name.get_suptitle()
    assert png_bytes(by_name) != png_bytes(draw(Choice("slices", slices=(4,)), material))
