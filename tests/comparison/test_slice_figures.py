"""What the articles' figures show: which arrays, colours and titles. Not how they look to the pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from napari_seg3d.cases.labels import MSD_BRAIN_TUMOUR, Region, regions_for
from napari_seg3d.comparison.canvas import png_bytes
from napari_seg3d.comparison.panel_figures import blind_figure, panels_figure, truth_is_first
from napari_seg3d.comparison.slice_figures import (
    agreement_figure,
    classes_figure,
    slice_grid_figure,
    triples_figure,
)
from napari_seg3d.comparison.slices import View, label_colors
from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, Volume

EDEMA = MSD_BRAIN_TUMOUR.table[1]


@pytest.fixture
def image(truth: LabelMap) -> Volume:
    rng = np.random.default_rng(0)
    return Volume(rng.uniform(10, 20, truth.data.shape), truth.geometry, "FLAIR")


def shown(axes: Any, layer: int = 0) -> np.ndarray:
    return np.asarray(axes.images[layer].get_array())


def whole(label_map: LabelMap, image: Volume | None = None) -> View:
    """The view of a figure whose image fills the grid, or that has none."""
    return View.of(label_map.geometry) if image is not None else View.of(label_map.geometry, label_map.data != 0)


def test_slice_grid_has_truth_prediction_and_signed_difference(
    predicted: LabelMap, truth: LabelMap, image: Volume
) -> None:
    figure = slice_grid_figure(predicted, truth, image, slices=(3, 5), title="case 7")
    first, _, second, _, third, last = figure.axes[:6]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["slice 3", "slice 5"]
    assert [axes.get_ylabel() for axes in (first, second, third)] == ["truth", "prediction", "difference"]
    view = View.of(truth.geometry, image.data > image.data.min())
    table = truth.table
    assert np.array_equal(shown(first, 1), label_colors(view.picture(truth.data, "axial", 3), table))
    assert np.array_equal(shown(second, 1), label_colors(view.picture(predicted.data, "axial", 3), table))
    expected = (predicted.data != 0).astype(int) - (truth.data != 0)
    assert np.array_equal(shown(last), view.picture(expected, "axial", 5))
    assert {-1, 1} <= set(shown(third).ravel().tolist())
    drawn = third.images[0]
    assert (drawn.get_clim(), drawn.get_cmap().name) == ((-1, 1), "coolwarm")
    assert last.images[0].colorbar is not None
    assert third.get_aspect() == pytest.approx(1.2 / 0.9)
    assert figure.get_suptitle() == "case 7 · any label, axial"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [label.name for label in table]


def test_one_class_or_region_is_drawn_alone_in_its_colour(predicted: LabelMap, truth: LabelMap) -> None:
    core = Region.named("tumour core", (2, 3))
    for structure, values in ((EDEMA, (1,)), (core, (2, 3))):
        figure = slice_grid_figure(predicted, truth, structure=structure, plane="coronal", slices=(10,))
        mask = np.isin(truth.data, values)
        view = View.of(truth.geometry, mask | np.isin(predicted.data, values))
        colors = shown(figure.axes[0], 1)
        assert np.array_equal(colors[..., 3] > 0, view.picture(mask, "coronal", 10))
        assert to_hex(colors[colors[..., 3] > 0][0, :3]) == structure.color
        assert structure.name in figure.get_suptitle()
        assert len(figure.legends[0].get_texts()) == 1


def test_slices_are_spread_through_the_labels_by_default(predicted: LabelMap, truth: LabelMap) -> None:
    titles = [axes.get_title() for axes in slice_grid_figure(predicted, truth).axes[:5]]
    assert titles == [f"slice {number}" for number in (2, 4, 5, 6, 8)]
    with pytest.raises(GeometryError, match="no axial slice 11"):
        slice_grid_figure(predicted, truth, slices=(2, 11))


def test_agreement_is_green_where_the_class_is_the_same_and_red_elsewhere(
    predicted: LabelMap, truth: LabelMap, image: Volume
) -> None:
    figure = agreement_figure(predicted, truth, image, slices=(5,))
    assert [axes.get_ylabel() for axes in figure.axes[:3]] == ["FLAIR", "prediction", "truth"]
    assert "agreement" in figure.axes[3].get_ylabel()
    view = View.of(truth.geometry, image.data > image.data.min())
    ours, theirs = (view.picture(each.data, "axial", 5) for each in (predicted, truth))
    colors = shown(figure.axes[3], 1)
    green, red = colors[..., 1] > colors[..., 0], colors[..., 0] > colors[..., 1]
    assert np.array_equal(green, (ours == theirs) & (theirs > 0))
    assert np.array_equal(red, ours != theirs)
    assert np.array_equal(shown(figure.axes[0]), view.picture(image.data, "axial", 5))
    # Without an image the row is left out.
    assert len(agreement_figure(predicted, truth, slices=(5,)).axes) == 3


def test_triples_have_a_row_a_slice_and_the_image_in_bone(predicted: LabelMap, truth: LabelMap, image: Volume) -> None:
    figure = triples_figure(predicted, truth, image, slices=(4, 6))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[3:] == ["prediction, slice 6", "truth, slice 6", "FLAIR, slice 6"]
    assert figure.axes[2].images[0].get_cmap().name == "bone"
    # What is called a prediction shows labels, never the background: background is transparent.
    view = View.of(truth.geometry, image.data > image.data.min())
    background = view.picture(predicted.data, "axial", 4) == 0
    assert not shown(figure.axes[0], 1)[background].any()
    assert shown(figure.axes[0], 1)[~background][:, 3].all()
    assert not shown(figure.axes[0]).any()


def test_almost_empty_classes_are_left_out_and_said(predicted: LabelMap, truth: LabelMap) -> None:
    few = truth.data.copy()
    few[few == 3] = 2
    few[8, 9, 4] = 3
    left, right = truth.with_data(few), predicted.with_data(np.where(predicted.data == 3, 2, predicted.data))
    whole_tumour = regions_for(truth.table)[0]
    figure = classes_figure(right, left, regions=(whole_tumour,))
    assert [axes.get_title() for axes in figure.axes[:3]] == ["oedema", truth.table[2].name, "whole tumour"]
    assert len(figure.axes) == 6
    assert figure.get_supxlabel() == f"Left out, almost empty: {truth.table[3].name} (1 voxels)"
    view = whole(left)
    number = view.middle(left.data != 0, "axial")
    assert f"slice {number}" in figure.get_suptitle()
    assert np.array_equal(
        shown(figure.axes[5], 1)[..., 3] > 0,
        View.of(left.geometry, (left.data != 0) | (right.data != 0)).picture(left.data != 0, "axial", number),
    )
    nothing = truth.with_data(np.zeros_like(truth.data))
    assert png_bytes(classes_figure(nothing, nothing))[:4] == b"\x89PNG"


def test_panels_show_every_modality_the_labels_and_the_regions(truth: LabelMap, image: Volume) -> None:
    other = Volume(-image.data, truth.geometry, "T1")
    regions = regions_for(truth.table)
    figure = panels_figure({"FLAIR": image, "T1": other}, truth, regions=regions, title="case 7")
    titles = [axes.get_title() for axes in figure.axes[:6]]
    assert titles == ["FLAIR", "T1", "labels", "whole tumour", "tumour core", "enhancing tumour"]
    assert len(figure.axes) == 18
    view = View.of(truth.geometry, (image.data > image.data.min()) | (other.data > other.data.min()))
    number = view.slice_with_most(truth.data != 0, "axial")
    assert np.array_equal(shown(figure.axes[1]), view.picture(other.data, "axial", number))
    for column, values in ((3, (1, 2, 3)), (4, (2, 3)), (5, (3,))):
        mask = view.picture(np.isin(truth.data, values), "axial", number)
        assert np.array_equal(shown(figure.axes[column], 1)[..., 3] > 0, mask)
    one = panels_figure({"FLAIR": image}, planes=("sagittal",), slices={"sagittal": 4})
    assert one.axes[0].get_ylabel() == "sagittal · slice 4"
    with pytest.raises(GeometryError, match="T1"):
        panels_figure({"FLAIR": image, "T1": Volume(np.zeros((3, 3, 3)), Geometry.with_spacing((3, 3, 3)), "T1")})


def test_a_blind_test_tells_nothing_until_it_is_revealed(predicted: LabelMap, truth: LabelMap) -> None:
    orders = {seed: truth_is_first("case 7", seed) for seed in range(20)}
    assert set(orders.values()) == {True, False}
    assert len({truth_is_first(f"case {n}", 0) for n in range(20)}) == 2
    for seed in range(4):
        hidden = blind_figure(predicted, truth, case="case 7", seed=seed)
        told = blind_figure(predicted, truth, case="case 7", seed=seed, revealed=True)
        assert [axes.get_title() for axes in hidden.axes[:2]] == ["A", "B"]
        texts = [text.get_text() for text in hidden.legends[0].get_texts()] + [hidden.get_suptitle()]
        assert not any("prediction" in text for text in texts)
        names = ["A: truth", "B: prediction"] if orders[seed] else ["A: prediction", "B: truth"]
        assert [axes.get_title() for axes in told.axes[:2]] == names
        view = View.of(truth.geometry, (truth.data != 0) | (predicted.data != 0))
        column = 0 if orders[seed] else 1
        both = (truth.data != 0) | (predicted.data != 0)
        for row, plane in enumerate(("axial", "coronal", "sagittal")):
            picture = view.picture(truth.data, plane, view.middle(both, plane))
            for figure in (hidden, told):
                assert np.array_equal(shown(figure.axes[2 * row + column], 1), label_colors(picture, truth.table))


def test_swapping_prediction_and_truth_cannot_be_seen(predicted: LabelMap, truth: LabelMap) -> None:
    """Drawn blind, a figure is the same whatever each map is called, but for the order."""
    seeds = [next(s for s in range(50) if truth_is_first("", s) is first) for first in (True, False)]
    one = blind_figure(predicted, truth, seed=seeds[0])
    other = blind_figure(truth, predicted.with_data(predicted.data), seed=seeds[1])
    assert png_bytes(one) == png_bytes(other)


def test_other_grids_are_refused(predicted: LabelMap, truth: LabelMap) -> None:
    elsewhere = LabelMap(np.zeros((4, 4, 4), np.uint8), Geometry.with_spacing((4, 4, 4)), name="elsewhere")
    for draw in (slice_grid_figure, agreement_figure, triples_figure, classes_figure, blind_figure):
        with pytest.raises(GeometryError, match="elsewhere"):
            draw(elsewhere, truth)
