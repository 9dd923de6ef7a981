"""Pictures of the window for the report: on a screen of their own, and a reason in words where there is none."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.errors import Seg3dError
from napari_seg3d.events import result_of
from napari_seg3d.gui.demo import PAGES, PICTURES, SIZE, screenshots
from napari_seg3d.prediction.predict import predict_many

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="virtual screens are a matter of Linux")


@pytest.mark.slow
@linux
def test_every_page_is_pictured_on_a_screen_of_its_own(trained_study, tmp_path, monkeypatch):
    project = trained_study.with_name("study-seg3d")
    case = open_dataset(trained_study)["case2"]
    result_of(predict_many([case], project / "runs" / "tiny", project / "predictions", device="cpu", threads=1))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    pictures = screenshots(trained_study, "case2", tmp_path / "pictures")
    assert list(pictures) == [PICTURES[name].title for name in PAGES]
    seen = {title: np.asarray(Image.open(path).convert("RGB")) for title, path in pictures.items()}
    for pixels in seen.values():
        assert pixels.shape == (SIZE[1], SIZE[0], 3)
        # The canvas shows the case, not an empty black: a hidden or failing viewer would.
        canvas = pixels[200:700, 400:1000]
        assert len(np.unique(canvas.reshape(-1, 3), axis=0)) > 20
    # Every page is another picture.
    titles = list(seen)
    for one, other in pairwise(titles):
        assert (seen[one] != seen[other]).any(axis=2).mean() > 0.01


@linux
def test_without_any_screen_the_reason_is_said(trained_study, tmp_path, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Seg3dError, match="Xvfb"):
        screenshots(trained_study, "case2", tmp_path / "pictures")


@linux
def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(Seg3dError, match="There is no folder"):
        screenshots(tmp_path / "nowhere", "case2", tmp_path / "pictures", ["data"])
