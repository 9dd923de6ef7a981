"""Confusion of classes, held against a plain count."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.comparison.confusion import confusion, confusion_figure, total_confusion
from napari_seg3d.errors import DatasetError, GeometryError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap


def test_rows_are_the_truth_and_columns_the_prediction(predicted: LabelMap, truth: LabelMap) -> None:
    found = confusion(predicted, truth)
    assert next(iter(found.names.values())) == "background"
    for row, value in enumerate(found.names):
        for column, other in enumerate(found.names):
            assert found.counts[row, column] == np.count_nonzero((truth.data == value) & (predicted.data == other))
    assert found.accuracy == np.mean(truth.data == predicted.data)
    assert found.background_accuracy == np.mean(truth.data == 0)
    assert np.nansum(found.shares, axis=1) == pytest.approx([1.0] * 4)


def test_cases_with_other_classes_add_up(predicted: LabelMap, truth: LabelMap) -> None:
    strange = predicted.with_data(np.where(predicted.data == 3, 7, predicted.data))
    parts = [confusion(predicted, truth), confusion(strange, truth)]
    total = total_confusion(parts)
    assert list(total.names) == [0, 1, 2, 3, 7]
    assert total.cases == 2
    assert total.counts.sum() == 2 * truth.data.size
    assert total.counts[3, 4] == np.count_nonzero((truth.data == 3) & (strange.data == 7))
    assert np.isnan(total.shares[4]).all()
    with pytest.raises(DatasetError, match="no case"):
        total_confusion([])
    with pytest.raises(GeometryError):
        confusion(LabelMap(np.zeros((3, 3, 3), np.uint8), Geometry.with_spacing((3, 3, 3))), truth)


def test_the_figure_never_shows_accuracy_alone(predicted: LabelMap, truth: LabelMap) -> None:
    found = confusion(predicted, truth)
    figure = confusion_figure(found, "case 7")
    left, right = figure.axes[:2]
    assert figure.get_suptitle() == (
        f"case 7 · 1 case · voxel accuracy {found.accuracy:.4f}, all background {found.background_accuracy:.4f}"
    )
    assert np.asarray(left.images[0].get_array()) == pytest.approx(found.shares)
    assert [text.get_text() for text in right.texts][:4] == [f"{n:,}" for n in found.counts[0]]
    assert [label.get_text() for label in left.get_yticklabels()] == list(found.names.values())
