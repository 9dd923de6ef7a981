"""What one gets without learning."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.cases.case import Case
from napari_seg3d.cases.labels import Region
from napari_seg3d.comparison.baselines import baselines
from napari_seg3d.errors import DatasetError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

GEOMETRY = Geometry.with_spacing((14, 9, 11), (1.0, 1.5, 3.0))
TABLE = LabelTable.from_names({1: "middle", 2: "bright", 3: "absent"})


def _case(noise: float) -> Case:
    random = np.random.default_rng(0)
    truth = np.zeros(GEOMETRY.shape, np.uint8)
    truth[3:8, 2:6, 2:9] = 1
    truth[9:12, 4:8, 3:6] = 2
    useless = random.normal(0, 1, GEOMETRY.shape).astype(np.float32)
    clear = (truth * 50.0 + random.normal(0, noise, GEOMETRY.shape)).astype(np.float32)
    # A constant background, which is no tissue, with another value than any class.
    clear[0], useless[0] = -9, -9
    volumes = {"T1": Volume(useless, GEOMETRY), "T2": Volume(clear, GEOMETRY)}
    return Case("a", volumes, LabelMap(truth, GEOMETRY, TABLE))


def test_all_background_scores_what_is_absent_only() -> None:
    nothing, _ = baselines(_case(1))
    assert nothing.dice == {"middle": 0.0, "bright": 0.0, "absent": 1.0}
    assert nothing.mean_dice == pytest.approx(1 / 3)


def test_a_threshold_finds_what_intensity_tells() -> None:
    _, threshold = baselines(_case(1))
    assert threshold.dice["middle"] == 1.0
    assert threshold.dice["bright"] == 1.0
    assert threshold.dice["absent"] == 1.0
    # The middle class needs both limits, and only T2 shows it.
    assert "≤ T2 <" in threshold.how["middle"]
    assert threshold.how["absent"] == "background"


def test_it_is_the_best_band_of_a_plain_search() -> None:
    case = _case(40)
    assert case.truth is not None
    _, threshold = baselines(case)
    best = 0.0
    for volume in case.modalities.values():
        limits = np.append(np.quantile(volume.data, np.linspace(0, 1, 60)), np.inf)
        for i, low in enumerate(limits):
            for high in limits[i + 1 :]:
                chosen = (volume.data >= low) & (volume.data < high)
                inside = case.truth.data == 1
                best = max(best, 2 * np.sum(chosen & inside) / (chosen.sum() + inside.sum()))
    assert best < 0.9
    assert threshold.dice["middle"] == pytest.approx(best, abs=0.02)
    assert threshold.dice["middle"] >= best - 0.005


def test_what_it_says_is_what_it_scores() -> None:
    case = _case(40)
    assert case.truth is not None
    _, threshold = baselines(case)
    low, high = (float(part) for part in threshold.how["middle"].replace("≤ T2 <", "").split())
    chosen = (case.modalities["T2"].data >= low) & (case.modalities["T2"].data < high)
    inside = case.truth.data == 1
    scored = 2 * np.sum(chosen & inside) / (chosen.sum() + inside.sum())
    # The limits are rounded to four digits in words.
    assert scored == pytest.approx(threshold.dice["middle"], abs=0.01)


def test_regions_have_baselines_too() -> None:
    both = Region("both", (1, 2), "#808080")
    nothing, threshold = baselines(_case(1), (both,))
    assert nothing.region_dice == {"both": 0.0}
    # One lower limit finds both classes.
    assert threshold.region_dice["both"] == 1.0
    assert set(threshold.dice) == {"middle", "bright", "absent"}


def test_without_truth_or_label_there_is_nothing_to_compare() -> None:
    case = _case(1)
    with pytest.raises(DatasetError, match="no truth"):
        baselines(Case("a", case.modalities))
    with pytest.raises(DatasetError, match="no label"):
        baselines(Case("a", case.modalities, LabelMap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY)))
