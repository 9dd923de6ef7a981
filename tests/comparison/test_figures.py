"""Pictures: what they show where, not how they look to the pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from napari_seg3d.comparison.canvas import png_bytes, save_figure
from napari_seg3d.comparison.figures import case_figure, curves_figure, overview_figure
from napari_seg3d.comparison.report import Table, compare
from napari_seg3d.comparison.slices import label_colors
from napari_seg3d.errors import GeometryError
from napari_seg3d.events import EpochDone, Step, Validated
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume


def _marked(codes_affine: np.ndarray, shape: tuple[int, int, int]) -> tuple[LabelMap, Volume]:
    """A study whose brightness grows to the patient's right, anterior and superior."""
    geometry = Geometry(shape, codes_affine)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    right, anterior, superior = np.moveaxis(geometry.world(grid), -1, 0)
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(1, n - 1) for n in shape)] = 1
    return LabelMap(labels, geometry, LabelTable.from_names({1: "core"})), Volume(
        right + 10 * anterior + 100 * superior, geometry
    )


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 1.5, 3.0, 1.0]),  # RAS
        np.diag([-1.0, -1.5, 3.0, 1.0]),  # LPS
        np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 5], [0, 1.5, 0, 0], [0, 0, 0, 1]]),  # P, S, R
    ],
)
def test_slices_are_radiological_whatever_the_orientation(affine: np.ndarray) -> None:
    truth, image = _marked(affine, (13, 9, 7))
    axes = case_figure(truth, truth, image).axes
    axial, coronal, sagittal = (axes[row * 4].images[0].get_array() for row in range(3))
    # Rows run downwards: anterior up in the axial slice, superior up in the others; the patient's right on the left.
    assert axial[0, 3] > axial[-1, 3]
    assert axial[3, 0] > axial[3, -1]
    assert coronal[0, 3] > coronal[-1, 3]
    assert coronal[3, 0] > coronal[3, -1]
    assert sagittal[0, 3] > sagittal[-1, 3]
    assert sagittal[3, 0] > sagittal[3, -1]


def test_proportions_are_those_of_the_patient() -> None:
    truth, image = _marked(np.diag([1.0, 1.5, 3.0, 1.0]), (13, 9, 7))
    axes = case_figure(truth, truth, image).axes
    # Height over width of a voxel, as matplotlib wants it.
    assert [axes[row * 4].get_aspect() for row in range(3)] == pytest.approx([1.5, 3.0, 2.0])


def test_difference_and_scores_are_shown(predicted: LabelMap, truth: LabelMap) -> None:
    scores = compare(predicted, truth, case="case 7")
    figure = case_figure(predicted, truth, scores=scores)
    difference = figure.axes[3].images[1].get_array()
    agreement = case_figure(truth, truth).axes[3].images[1].get_array()
    assert difference[..., 3].max() > 0
    assert agreement[..., 3].max() == 0
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == f"oedema · Dice {scores.by_label[0].dice:.3f}"
    assert texts[-3:] == ["missed", "added", "wrong class"]
    assert figure.get_suptitle() == f"case 7 · mean Dice {scores.mean_dice:.3f}"


def test_the_slice_number_is_that_of_the_file() -> None:
    geometry = Geometry((9, 8, 7), np.diag([1.0, 1.0, -2.0, 1.0]))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[4, 5, 1] = 1
    shown = LabelMap(labels, geometry)
    names = [case_figure(shown, shown).axes[row * 4].get_ylabel() for row in range(3)]
    assert names == ["axial · slice 1", "coronal · slice 5", "sagittal · slice 4"]


def test_slices_go_through_the_truth_whatever_was_predicted(truth: LabelMap) -> None:
    flooded = truth.data.copy()
    flooded[0] = 1
    names = [case_figure(truth.with_data(flooded), truth).axes[row * 4].get_ylabel() for row in range(3)]
    assert names == [case_figure(truth, truth).axes[row * 4].get_ylabel() for row in range(3)]


def test_an_outline_is_opaque_and_the_inside_is_not() -> None:
    labels = np.zeros((7, 9), np.uint8)
    labels[1:6, 2:8] = 2
    colors = label_colors(labels, LabelTable.from_names({2: "enhancing"}))
    assert colors[1, 2, 3] == 1.0
    assert 0 < colors[3, 5, 3] < 1.0
    assert colors[0, 0, 3] == 0.0
    assert colors[3, 5, :3] == pytest.approx(LabelTable.from_names({2: "enhancing"})[2].rgb)


def test_empty_labels_and_a_constant_image_are_drawn() -> None:
    geometry = Geometry.with_spacing((5, 6, 7))
    nothing = LabelMap(np.zeros(geometry.shape, np.uint8), geometry)
    assert png_bytes(case_figure(nothing, nothing, Volume(np.full(geometry.shape, 3.0), geometry)))[:4] == b"\x89PNG"


def test_other_grids_are_refused(predicted: LabelMap, truth: LabelMap) -> None:
    image = Volume(np.zeros((5, 6, 7)), Geometry.with_spacing((5, 6, 7)), "T1")
    with pytest.raises(GeometryError, match="T1"):
        case_figure(predicted, truth, image)


def test_overview_has_a_dot_per_case_and_a_row_per_class(predicted: LabelMap, truth: LabelMap) -> None:
    table = Table((compare(predicted, truth, case="a"), compare(truth, truth, case="b")))
    (axes,) = overview_figure(table).axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert len(rows) == 6
    assert rows[0].startswith("oedema")
    assert [len(dots.get_offsets()) for dots in axes.collections[::2]] == [2] * 6
    assert sorted(axes.collections[0].get_offsets()[:, 0]) == pytest.approx(
        sorted([table.cases[0].by_label[0].dice, 1.0])
    )


def test_curves_of_a_training() -> None:
    history = [
        Step(1, 0, 0.9, 1e-3, 3.0),
        EpochDone(0, None, 0.8, 1e-3, 10, 60.0),
        Validated(0, 10, {"core": 0.4, "rim": 0.2}, 0.3, {}, True, 65.0),
        EpochDone(1, None, 0.5, 1e-3, 20, 120.0),
        Validated(1, 20, {"core": 0.6, "rim": 0.4}, 0.5, {}, True, 125.0),
    ]
    loss, dice = curves_figure(history, LabelTable.from_names({1: "core"})).axes
    assert loss.lines[0].get_xydata().tolist() == [[1.0, 0.8], [2.0, 0.5]]
    assert [line.get_label() for line in dice.lines] == ["core", "rim", "mean"]
    assert dice.lines[2].get_ydata().tolist() == [0.3, 0.5]
    assert loss.get_title() == "training loss"
    # A run that was stopped before its first check still has a picture.
    assert png_bytes(curves_figure([]))[:4] == b"\x89PNG"


def test_training_and_validation_and_the_discriminator_are_held_against_each_other() -> None:
    told = {"D loss": 0.25, "D accuracy": 0.75, "D updated": 0.5, "G loss": 4.5, "voxel loss": 0.8}
    history = [
        EpochDone(1, None, 4.5, 1e-3, 10, 60.0, None, {"core": 0.3}, told),
        Validated(1, 10, {"core": 0.4}, 0.4, {}, True, 65.0, 0.9),
    ]
    figure = curves_figure(history, LabelTable.from_names({1: "core"}))
    loss, dice, details, shares = figure.axes
    # Of the generator's loss only the part that validation measures too.
    assert [line.get_ydata().tolist() for line in loss.lines] == [[0.8], [0.9]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert [(line.get_linestyle(), line.get_ydata().tolist()) for line in dice.lines] == [
        (":", [0.3]), ("-", [0.4]), ("--", [0.4])
    ]  # fmt: skip
    assert dice.lines[0].get_color() == dice.lines[1].get_color()
    assert [line.get_label() for line in details.lines] == ["D loss", "G loss", "voxel loss"]
    assert [line.get_label() for line in shares.lines] == ["D accuracy", "D updated"]


def test_the_same_figure_gives_the_same_file(predicted: LabelMap, truth: LabelMap, tmp_path: Path) -> None:
    path = save_figure(tmp_path / "new" / "case.png", case_figure(predicted, truth))
    assert path.read_bytes() == png_bytes(case_figure(predicted, truth))
    assert imread(path).shape[2] in (3, 4)
