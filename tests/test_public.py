"""The everyday names of the package."""

from __future__ import annotations

import importlib.metadata
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import napari_seg3d
from napari_seg3d import LabelMap, Volume, compare, make_plan, open_dataset, predict, result_of, train
from napari_seg3d.cases.case import Case
from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.model.plan import Plan
from napari_seg3d.volumes.files import write_label_map, write_volume


def test_names_are_those_of_their_rooms() -> None:
    assert napari_seg3d.Case is Case
    assert set(napari_seg3d.__all__) <= set(dir(napari_seg3d))
    assert all(getattr(napari_seg3d, name) is not None for name in napari_seg3d.__all__)
    assert napari_seg3d.__version__ == importlib.metadata.version("napari-seg3d")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        napari_seg3d.nonsense  # noqa: B018


def test_importing_takes_less_than_a_third_of_a_second() -> None:
    def seconds(code: str) -> float:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    assert seconds("import napari_seg3d") - seconds("pass") < 0.3


def test_from_a_folder_to_scores(
    tmp_path: Path, tiny_case: Callable[..., Case], tiny_plan: Callable[..., Plan]
) -> None:
    for number in range(2):
        case = tiny_case(number)
        folder = tmp_path / "study" / case.id
        folder.mkdir(parents=True)
        for name, volume in case.modalities.items():
            write_volume(folder / f"{case.id}_{name}.nii.gz", volume)
        assert case.truth is not None
        write_label_map(folder / f"{case.id}_seg.nii.gz", case.truth)
    dataset = open_dataset(tmp_path / "study")
    planned = make_plan(dataset, epochs=1, device="cpu")
    assert planned.modalities == ("FLAIR", "T1c")
    assert planned == make_plan(result_of(fingerprint(dataset.labelled)), epochs=1, device="cpu")
    plan = tiny_plan(epochs=1, steps_per_epoch=1)
    run = result_of(train(plan, [tiny_case(0)], tmp_path / "run", device="cpu"))
    held_out = tiny_case(1)
    prediction = result_of(predict(held_out, run, device="cpu"))
    assert isinstance(prediction.label_map, LabelMap)
    assert isinstance(held_out.modalities["FLAIR"], Volume)
    scores = compare(prediction.label_map, held_out.truth)
    inside = [prediction.label_map.data == 1, held_out.truth.data == 1]
    expected = 2 * np.sum(inside[0] & inside[1]) / max(1, inside[0].sum() + inside[1].sum())
    assert scores.by_label[0].dice == pytest.approx(expected)
