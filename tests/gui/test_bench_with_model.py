"""The bench with a real, tiny model: uncertain regions, the next case predicted ahead, and a key that is pressed."""

from __future__ import annotations

import numpy as np
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_seg3d.cli import main
from napari_seg3d.gui.keys import HELP, KeyMapWindow, perform
from napari_seg3d.gui.predict_panel import PredictPanel
from napari_seg3d.gui.review_panel import ReviewPanel
from napari_seg3d.gui.session import Session, session_for
from napari_seg3d.gui.steps_section import UNCERTAIN, UNCERTAIN_FROM
from napari_seg3d.volumes.files import read_volume


def test_uncertain_regions_keys_and_predicting_ahead(make_napari_viewer, trained_study, qtbot):
    output = trained_study.with_name("study-seg3d")
    folder = output / "predictions" / "tiny"
    model = str(output / "runs" / "tiny")
    of_case1 = ["--cases", "case1", "--uncertainty", "--device", "cpu", "--quiet"]
    assert main(["predict", model, str(trained_study), "--output", str(folder), *of_case1]) == 0
    # Only what is seen works ahead.
    viewer = make_napari_viewer(show=True)
    try:
        session = session_for(viewer)
        workspace = session.workspace
        review, predict = ReviewPanel(workspace, viewer), PredictPanel(workspace, viewer)
        for page in (predict, review):
            viewer.window.add_dock_widget(page, area="right")

        def wait(condition, seconds=60):
            qtbot.waitUntil(lambda: bool(condition()), timeout=1000 * seconds)

        workspace.open_dataset(trained_study)
        wait(lambda: workspace.dataset is not None)
        shown = []
        session.view.shown.connect(lambda: shown.append(workspace.case_id))
        workspace.open_case("case1")
        wait(lambda: shown == ["case1"])
        wait(lambda: review._comparison is not None)

        steps = review.steps
        place = steps.source.findData(UNCERTAIN)
        assert place >= 0
        steps.source.setCurrentIndex(place)
        steps.source.activated.emit(place)
        # What another list held is gone at once.
        assert steps.places == ()
        assert steps.where.text() == "Looking…"
        wait(lambda: steps.places)
        uncertainty = read_volume(folder / "case1.uncertainty.nii.gz").data
        reached = np.zeros(uncertainty.shape, bool)
        for one in steps.places:
            assert (uncertainty[one.indices] >= UNCERTAIN_FROM).all()
            reached[one.indices] = True
        # Places of one or two voxels are left out.
        assert reached.sum() >= 0.9 * np.count_nonzero(uncertainty >= UNCERTAIN_FROM)
        volumes = [one.volume_ml for one in steps.places]
        assert volumes == sorted(volumes, reverse=True)
        count = len(steps.places)
        perform(viewer, "next_place")
        assert steps.where.text().startswith(f"1 of {count}, ")
        assert "uncertain" in steps.where.text()
        assert viewer.layers["place"].data[viewer.dims.current_step] == 1
        perform(viewer, "check_place")
        assert len(steps.places) == count - 1

        # The next case is predicted while nobody has asked for it, as soon as this one is there.
        assert predict.model is not None
        wait(lambda: "case2" in workspace.predictions, seconds=120)
        assert workspace.case_id == "case1"

        # "?" as people press it.
        window = viewer.window._qt_window
        window.activateWindow()
        QApplication.setActiveWindow(window)
        viewer.window._qt_viewer.canvas.native.setFocus()
        assert not window.findChildren(KeyMapWindow)
        QTest.keyClicks(viewer.window._qt_viewer.canvas.native, HELP)
        wait(lambda: any(one.isVisible() for one in window.findChildren(KeyMapWindow)), seconds=5)
        for one in window.findChildren(KeyMapWindow):
            one.close()
    finally:
        for one in viewer.window._qt_window.findChildren(Session):
            one.shutdown()
