"""A training patch as layers: named, in its place, never taken for the user's own labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.events import result_of
from napari_seg3d.gui.layers import origin_of
from napari_seg3d.gui.preview import PREFIX, PatchPreview, Wanted
from napari_seg3d.gui.review_panel import ReviewPanel
from napari_seg3d.gui.session import session_for
from napari_seg3d.model.planner import make_plan
from napari_seg3d.training.preview import preview

from .conftest import TINY


@pytest.fixture
def wanted(study: Any) -> Wanted:
    cases = open_dataset(study).labelled
    plan = make_plan(result_of(fingerprint(cases)), device="cpu", epochs=2, changes={**TINY, "batch_size": 2})
    return Wanted(plan, cases)


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers if layer.name.startswith(PREFIX)]


def test_one_patch_after_the_other_is_shown(viewer: Any, workspace: Any, wanted: Wanted, qtbot: Any) -> None:
    widget = PatchPreview(workspace, viewer)
    qtbot.addWidget(widget)
    assert not widget.button.isEnabled()
    widget.propose(wanted)
    assert widget.button.text() == "See a training patch"
    mine = viewer.add_image(np.ones((4, 5, 6), np.float32), name="mine")
    expected = [patch for step in (0, 1) for patch in result_of(preview(wanted.plan, wanted.cases, step=step))]
    for patch in expected[:3]:
        widget.button.click()
        assert names(viewer) == [f"{PREFIX}{name}" for name in (*patch.images, "target")]
        layer = viewer.layers[f"{PREFIX}target"]
        origin = origin_of(layer)
        assert origin.role == "patch"
        assert origin.geometry == patch.target.geometry
        assert sorted(np.unique(layer.data)) == sorted(np.unique(patch.target.data))
        assert widget.words.text() == patch.in_words()
        # The cursor stands where there are labels; the layers of other patients are out of the way.
        index = np.rint(layer.world_to_data(viewer.dims.point[-3:])).astype(int)
        assert (np.abs(index - np.argwhere(layer.data).mean(0)) <= np.array(layer.data.shape) / 2).all()
        assert layer.data[index[0]].any()
        assert not mine.visible
    assert widget.button.text() == "See the next patch"
    # Another plan begins with its first patch.
    widget.propose(Wanted(wanted.plan.changed({"seed": 5}), wanted.cases))
    assert widget.button.text() == "See a training patch"
    assert widget.words.text() == ""
    widget.show_next()
    assert "step 0, place 0" in widget.words.text()


def test_a_patch_is_nothing_to_review_and_goes_with_its_case(
    viewer: Any, workspace: Any, wanted: Wanted, qtbot: Any
) -> None:
    page = ReviewPanel(session_for(viewer).workspace, viewer)
    viewer.window.add_dock_widget(page, area="right")
    widget = PatchPreview(workspace, viewer)
    qtbot.addWidget(widget)
    widget.propose(wanted)
    widget.show_next()
    assert names(viewer)
    assert page.predicted_layer is None
    assert page.truth_layer is None
    assert not session_for(viewer).view.unsaved_layers()
    target = viewer.layers[f"{PREFIX}target"]
    assert not target.editable
    assert target.locked
