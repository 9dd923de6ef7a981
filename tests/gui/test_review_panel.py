"""The Review page, in a real viewer with real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtWidgets import QFileDialog

from napari_seg3d.cases.corrections import save_correction, versions
from napari_seg3d.comparison.baselines import baselines
from napari_seg3d.comparison.difference import difference_map
from napari_seg3d.comparison.report import compare
from napari_seg3d.correction.queue import agreement
from napari_seg3d.gui.commands import _on_page
from napari_seg3d.gui.keys import perform
from napari_seg3d.gui.layers import label_map_of, prediction_layer, voxel_on_screen
from napari_seg3d.gui.raters import RatersWindow
from napari_seg3d.gui.review_panel import _TOOLS, ReviewPanel
from napari_seg3d.gui.session import session_for
from napari_seg3d.gui.workspace import Workspace
from napari_seg3d.volumes.files import read_label_map


class Page:
    """A Review page on case1 of the study, with the truth moved by one voxel as prediction."""

    def __init__(self, viewer: Any, workspace: Workspace, qtbot: Any, study: Path) -> None:
        self.viewer, self.workspace, self.qtbot = viewer, workspace, qtbot
        self.panel = ReviewPanel(workspace, viewer)
        viewer.window.add_dock_widget(self.panel, name="Review", area="right")
        assert self.panel.is_empty
        workspace.open_dataset(study)
        self.wait(lambda: workspace.dataset is not None)
        workspace.open_case("case1")
        self.wait(lambda: len(viewer.layers) == 2)
        truth = label_map_of(viewer.layers["truth"])
        shifted = truth.with_data(np.roll(truth.data, 1, 0))
        self.prediction = prediction_layer(shifted, case_id="case1")
        viewer.add_layer(self.prediction)
        self.wait_for_scores()

    def wait(self, condition: Any) -> None:
        self.qtbot.waitUntil(condition, timeout=30_000)

    def wait_for_scores(self) -> None:
        self.wait(lambda: self.panel._comparison is not None and self.panel._job is None)

    def cells(self, row: int) -> list[str]:
        table = self.panel.scores
        return [table.item(row, column).text() for column in range(table.columnCount())]

    def paint(self, index: tuple[int, int, int], value: int) -> None:
        self.prediction.data_setitem(tuple(np.array([i]) for i in index), value)


@pytest.fixture
def page(viewer_workspace: tuple[Any, Workspace], qtbot: Any, study: Path) -> Page:
    return Page(*viewer_workspace, qtbot, study)


def test_the_palette_reaches_what_has_no_key(page: Page) -> None:
    panel, viewer = page.panel, page.viewer
    page.wait(lambda: panel.tools.layer is page.prediction)
    # Every tool has a command, with a key or without.
    keyed = {"ball", "threshold", "lasso", "between", "largest", "remove clicked", "holes", "smooth", "seeds"}
    assert {*_TOOLS.values(), *keyed} == set(panel.tools.buttons)
    before = page.prediction.data.copy()
    assert _on_page(viewer, "grow")
    page.wait(lambda: "preview" in viewer.layers)
    panel.tools.apply()
    assert np.count_nonzero(page.prediction.data) > np.count_nonzero(before)
    _on_page(viewer, "keep_clicked")
    assert panel.tools.buttons["keep clicked"].isChecked()
    _on_page(viewer, "keep_clicked")
    count = len(viewer.layers)
    _on_page(viewer, "edit_copy")
    assert len(viewer.layers) == count + 1
    _on_page(viewer, "figures")
    assert panel._figures is not None
    panel._figures.close()
    # Prediction and truth are no two raters: there is nothing to agree on.
    _on_page(viewer, "consensus")
    assert len(viewer.layers) == count + 1


def test_scores_difference_and_ways_to_the_faults(page: Page) -> None:
    panel, viewer = page.panel, page.viewer
    assert not panel.is_empty
    assert panel.predicted_layer is page.prediction
    assert panel.truth_layer is viewer.layers["truth"]
    expected = compare(label_map_of(page.prediction), label_map_of(viewer.layers["truth"]))
    for row, score in enumerate(expected.by_label):
        name, dice, iou, hd95, mean, predicted, truth, difference = page.cells(row)
        assert name == score.name
        assert (dice, iou) == (f"{score.dice:.2f}", f"{score.iou:.2f}")
        assert (hd95, mean) == (f"{score.hd95_mm:.1f}", f"{score.mean_surface_mm:.2f}")
        assert float(truth) == pytest.approx(score.truth_ml, abs=0.005)
        assert float(difference) == pytest.approx(float(predicted) - float(truth), abs=0.011)
    assert page.cells(len(expected.by_label))[:2] == ["Mean", f"{expected.mean_dice:.2f}"]

    panel.difference.switch.setChecked(True)
    difference = viewer.layers["difference"]
    assert not difference.editable
    both = np.asarray(page.prediction.data) != np.asarray(viewer.layers["truth"].data)
    assert np.array_equal(difference.data > 0, both)
    # The first place is the largest; the cursor stands in it, and a line is drawn around it.
    panel.steps.on.click()
    assert "1 of" in panel.steps.where.text()
    assert difference.data[viewer.dims.current_step] > 0
    outline = viewer.layers["place"]
    assert outline.data[viewer.dims.current_step] == 1
    assert np.count_nonzero(outline.data) == panel.steps._places[0].voxels
    assert outline not in [panel._predicted.itemData(i) for i in range(panel._predicted.count())]
    # The strip counts along the slider, also in another plane.
    assert panel.difference.strip._counts.sum(axis=1).tolist() == np.count_nonzero(both, axis=(1, 2)).tolist()
    session_for(viewer).view.show_plane("sagittal")
    assert panel.difference.strip._counts.sum(axis=1).tolist() == np.count_nonzero(both, axis=(0, 1)).tolist()
    panel.difference.strip.slice_wanted.emit(3)
    assert viewer.dims.current_step[2] == 3

    # After a stroke everything follows; the layer that the user took away stays away.
    before = page.cells(0)[1]
    page.prediction.data_setitem(np.nonzero(both), np.asarray(viewer.layers["truth"].data)[both])
    page.wait(lambda: page.cells(0)[1] == "1.00" != before)
    assert not viewer.layers["difference"].data.any()
    assert panel.steps.where.text() == "No disagreement."
    viewer.layers.remove(viewer.layers["difference"])
    assert not panel.difference.switch.isChecked()
    page.paint((1, 1, 1), 2)
    page.wait(lambda: panel.steps.where.text() == "Only places of less than 3 voxels differ.")
    assert "difference" not in viewer.layers


def test_a_correction_is_saved_whole_and_said_to_be_identical(
    page: Page, study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    panel, workspace = page.panel, page.workspace
    originals = {path: path.read_bytes() for path in study.rglob("*.nii.gz")}
    page.paint((2, 3, 4), 2)
    page.wait(lambda: workspace.unsaved == {"prediction"})
    assert "prediction" in panel._unsaved.text()
    panel._save.click()
    # A stroke while it is being saved stays an edit.
    page.paint((2, 3, 5), 1)
    page.wait(lambda: "identical" in panel.messages.text)
    assert "v001.nii.gz" in panel.messages.text
    path = workspace.corrections_folder / "case1" / "v001.nii.gz"
    saved, layer = read_label_map(path), label_map_of(page.prediction)
    assert np.count_nonzero(saved.data != layer.data) == 1
    assert saved.geometry.same_grid(layer.geometry)
    assert workspace.corrections == {"case1": path}
    page.wait(lambda: workspace.unsaved == {"prediction"})
    panel._save.click()
    page.wait(lambda: not workspace.unsaved)
    assert np.array_equal(read_label_map(path.with_name("v002.nii.gz")).data, layer.data)

    chosen = study / "labels" / "case1.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(chosen), ""))
    panel.save_as()
    assert "is an original of the dataset" in panel.messages.text
    chosen = tmp_path / "mine.nii.gz"
    panel.save_as()
    page.wait(lambda: "mine.nii.gz" in panel.messages.text)
    assert np.array_equal(read_label_map(chosen).data, layer.data)
    chosen = tmp_path / "no such folder" / "mine.nii.gz"
    panel.save_as()
    page.wait(lambda: "is not saved" in panel.messages.text)
    assert "folder does not exist" in panel.messages.text
    assert {path: path.read_bytes() for path in study.rglob("*.nii.gz")} == originals


def test_other_layers_deleted_layers_and_another_case(page: Page) -> None:
    panel, viewer = page.panel, page.viewer
    # A layer that the user made himself, on the grid of the image.
    image = viewer.layers[0]
    mine = Labels(np.zeros(image.data.shape, np.uint8), scale=image.scale, translate=image.translate, name="mine")
    mine.data[2:4] = 1
    viewer.add_layer(mine)
    panel._predicted.setCurrentIndex(panel._predicted.findText("mine"))
    panel._compare(surface=True)
    page.wait_for_scores()
    assert page.workspace.unsaved == {"mine"}
    # One that lies elsewhere is refused in words, and nothing is shown.
    other = viewer.add_labels(np.ones((3, 3, 3), np.uint8), name="other")
    panel._predicted.setCurrentIndex(panel._predicted.findText("other"))
    panel._compare(surface=True)
    assert "Make a new labels layer" in panel._note.text()
    assert panel._comparison is None
    viewer.layers.remove(other)
    # A copy of the locked truth can be painted on.
    panel.edit_copy()
    copy = viewer.layers["truth (edited)"]
    assert copy.editable
    assert panel.predicted_layer is copy
    page.wait_for_scores()
    assert page.cells(0)[1] == "1.00"
    copy.name = "my correction"
    assert panel._predicted.currentText() == "my correction"
    # Deleting what is being compared, and changing the case meanwhile, ends quietly.
    panel._compare(surface=True)
    viewer.layers.remove(copy)
    panel._compare(surface=True)
    page.workspace.open_case("case2")
    page.wait(lambda: page.workspace.case_id == "case2")
    page.wait(lambda: panel.truth_layer in viewer.layers and len(viewer.layers) >= 2)
    assert panel.truth_layer is not None
    viewer.layers.clear()
    assert panel.is_empty


def test_what_is_reached_without_learning_stands_below_the_scores(page: Page) -> None:
    panel, case = page.panel, page.workspace.case
    nothing, threshold = baselines(case)
    expected = f"all background {nothing.mean_dice:.2f} · best threshold {threshold.mean_dice:.2f}"
    page.wait(lambda: panel._beside.text() == expected)
    assert "Without learning" in panel._beside.toolTip()
    assert all(f"{name}: {how}" in panel._beside.toolTip() for name, how in threshold.how.items())
    assert len(threshold.how) == 2
    found = panel._threshold
    # A stroke on the prediction needs no new search.
    page.paint((1, 1, 1), 2)
    page.wait_for_scores()
    panel._compare(surface=True)
    page.wait_for_scores()
    assert panel._threshold is found
    assert panel._search is None


def test_figures_show_what_is_compared(page: Page) -> None:
    panel = page.panel
    material = panel.material()
    assert material.case == "case1"
    assert np.array_equal(material.predicted.data, label_map_of(page.prediction).data)
    assert list(material.images) == list(page.workspace.case.modalities)
    panel._figures_button.click()
    window = panel._figures
    page.wait(lambda: window._drawing is not None)
    assert window._drawing.figure.get_suptitle().startswith("case1")
    before = window._drawing
    page.paint((1, 1, 1), 2)
    page.wait(lambda: window._drawing is not before)
    window.close()


def test_every_stroke_is_in_scores_difference_strip_and_list_at_once(page: Page) -> None:
    panel, viewer, layer = page.panel, page.viewer, page.prediction
    panel.show_difference(True)
    page.wait(lambda: page.cells(0)[3] != "–")
    loaded = np.array(layer.data)
    truth = label_map_of(viewer.layers["truth"])

    def is_up_to_date() -> bool:
        now = label_map_of(layer)
        scores = compare(now, truth, surface=False)
        for row, score in enumerate(scores.by_label):
            shown = page.cells(row)
            assert shown[:3] == [score.name, f"{score.dice:.2f}", f"{score.iou:.2f}"]
            assert float(shown[7]) == pytest.approx(score.difference_ml, abs=0.011)
        assert page.cells(len(scores.by_label))[1] == f"{scores.mean_dice:.2f}"
        assert panel._comparison.scores.voxel_accuracy == pytest.approx(scores.voxel_accuracy)
        differs = np.asarray(layer.data) != np.asarray(viewer.layers["truth"].data)
        assert np.array_equal(viewer.layers["difference"].data > 0, differs)
        assert panel.difference.strip._counts.sum(axis=1).tolist() == np.count_nonzero(differs, axis=(1, 2)).tolist()
        assert np.array_equal(panel._comparison.difference, difference_map(now.data, truth.data))
        return True

    # Nothing is waited for: a stroke is over when its call returns.
    layer.brush_size = 5
    layer.selected_label = 2
    layer.paint((3, 12, 10), 2)
    assert is_up_to_date()
    assert "Since it was loaded: " in panel._changes.text()
    # Distances of the touched labels are unknown until somebody pauses.
    assert page.cells(1)[3] == "–"
    layer.undo()
    assert np.array_equal(layer.data, loaded)
    assert is_up_to_date()
    assert panel._changes.text() == ""
    # A label that no truth has gets a line of its own.
    layer.paint((8, 3, 3), 7)
    assert page.cells(2)[0] == "label 7"
    layer.undo()
    panel._measure()
    page.wait(lambda: page.cells(1)[3] != "–")
    # In another plane the strip counts along the other axis, also after a stroke.
    session_for(viewer).view.show_plane("coronal")
    layer.paint((3, 12, 10), 2)
    differs = np.asarray(layer.data) != np.asarray(viewer.layers["truth"].data)
    assert panel.difference.strip._counts.sum(axis=1).tolist() == np.count_nonzero(differs, axis=(0, 2)).tolist()


def test_places_are_decided_with_one_key_and_one_step_to_undo(page: Page) -> None:
    panel, viewer, layer = page.panel, page.viewer, page.prediction
    steps, truth = panel.steps, viewer.layers["truth"]
    count = len(steps._places)
    assert count > 3
    assert perform(viewer, "next_place")
    place = steps._current
    assert steps.where.text().startswith(f"1 of {count}, ")
    assert viewer.layers.selection.active is layer
    where = viewer.layers["place"].data > 0
    before, others = np.array(layer.data), np.array(layer.data)[~where]
    assert layer.selected_label in {*np.unique(truth.data[where]), *np.unique(before[where])} - {0}
    perform(viewer, "accept_place")
    assert np.array_equal(layer.data[where], truth.data[where])
    assert np.array_equal(np.asarray(layer.data)[~where], others)
    assert len(steps._places) == count - 1
    # On to the next by itself; one undo brings the voxels and the place back.
    assert steps._current is not None
    assert steps._current is not place
    layer.undo()
    assert np.array_equal(layer.data, before)
    assert len(steps._places) == count
    # Kept and checked places leave the list, not the layer.
    steps._go_to(0)
    kept = steps._current
    perform(viewer, "keep_place")
    perform(viewer, "check_place")
    assert len(steps._places) == count - 2
    assert "1 kept · 1 checked" in steps.where.text()
    perform(viewer, "uncheck_place")
    perform(viewer, "uncheck_place")
    assert len(steps._places) == count
    assert steps._current is kept
    assert np.array_equal(layer.data, before)
    # Slice by slice, in the direction of the slider.
    steps.order.setCurrentIndex(1)
    steps.order.activated.emit(1)
    slices = []
    for number in range(count):
        steps._go_to(number)
        slices.append(viewer.dims.current_step[0])
    assert slices == sorted(slices)
    # A layer without edits can be looked at only.
    panel._predicted.setCurrentIndex(panel._predicted.findText("truth"))
    panel._truth.setCurrentIndex(panel._truth.findText("prediction"))
    panel._compare(surface=False)
    page.wait_for_scores()
    perform(viewer, "next_place")
    perform(viewer, "accept_place")
    assert "Edit a copy" in panel.messages.text
    assert "place" in viewer.layers
    # Without a truth: islands and holes.
    viewer.layers.remove("truth")
    page.wait(lambda: panel.predicted_layer is layer)
    assert steps.chosen == "implausible"
    page.paint((9, 1, 1), 1)
    # A page that is not seen looks for nothing by itself.
    steps._look_for()
    page.wait(lambda: any(stop.words.startswith("island of label 1") for stop in steps._places))
    while not steps._current or steps._current.kind != "island":
        steps.step(1)
    assert viewer.dims.current_step == (9, 1, 1)
    perform(viewer, "accept_place")
    assert layer.data[9, 1, 1] == 0
    steps._look_for()
    page.wait(lambda: steps._search is None)
    assert not any(stop.kind == "island" for stop in steps._places)


def test_marks_are_undone_in_their_turn_and_there_again(page: Page) -> None:
    panel, viewer, layer, workspace = page.panel, page.viewer, page.prediction, page.workspace
    steps, edits = panel.steps, session_for(viewer).view.edits_of(layer)
    count = len(steps.places)
    perform(viewer, "next_place")
    kept = steps._current
    perform(viewer, "keep_place")
    checked = steps._current
    perform(viewer, "check_place")
    perform(viewer, "accept_place")
    words = steps._stop(kept).words
    assert edits.done[0] == f"Kept: {words}"
    assert edits.done[1].startswith("Checked: ")
    assert edits.done[2].startswith("Take the other version: ")
    assert len(steps.places) == count - 3
    # Ctrl+Z takes back what came last: the labels, then the marks, each with its place on the list again.
    layer.undo()
    assert len(steps.places) == count - 2
    layer.undo()
    assert steps._current is checked
    assert "1 kept" in steps.where.text()
    assert "checked" not in steps.where.text()
    layer.redo()
    assert "1 kept · 1 checked" in steps.where.text()
    # A mark that other edits came after is taken back by its key, which is a step of its own.
    page.paint((9, 1, 1), 1)
    perform(viewer, "uncheck_place")
    assert edits.done[-1].startswith("Back on the list: ")
    assert "1 kept" in steps.where.text()
    layer.undo()
    assert "1 kept · 1 checked" in steps.where.text()
    layer.undo()
    # Marks alone leave nothing to be saved; another case has none; they are there again, in a layer like that one.
    page.wait(lambda: not workspace.unsaved)
    workspace.open_case("case2")
    page.wait(lambda: workspace.case_id == "case2" and "truth" in viewer.layers)
    workspace.open_case("case1")
    page.wait(lambda: workspace.case_id == "case1" and "truth" in viewer.layers)
    truth = label_map_of(viewer.layers["truth"])
    page.prediction = viewer.add_layer(prediction_layer(truth.with_data(np.roll(truth.data, 1, 0)), case_id="case1"))
    page.wait_for_scores()
    assert "1 kept · 1 checked" in steps.where.text()
    assert len(steps.places) == count - 2
    assert not any(np.array_equal(place.indices, kept.indices) for place in steps.places)
    perform(viewer, "uncheck_place")
    assert np.array_equal(steps._current.indices, checked.indices)
    # What was marked comes up again when it is painted in.
    page.prediction.data_setitem(
        tuple(np.array([int(index)]) for index in voxel_on_screen(kept.centre_voxel, truth.geometry)), 7
    )
    assert "kept" not in steps.where.text()


def test_two_raters_and_their_consensus(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    panel, viewer, workspace = page.panel, page.viewer, page.workspace
    truth, folder = workspace.case.truth, workspace.corrections_folder
    layers = []
    for name, axis in (("anna", 0), ("ben", 1)):
        path = save_correction(folder, "case1", truth.with_data(np.roll(truth.data, 1, axis)), author=name)
        # They are called after who saved them, whatever their layers are called.
        label_map = read_label_map(path, truth.table)
        layers.append(prediction_layer(label_map, name=f"version of {name}", case_id="case1", path=path))
        viewer.add_layer(layers[-1])
    workspace.refresh_results()
    panel._predicted.setCurrentIndex(panel._predicted.findText("version of anna"))
    panel.compare_with(layers[1])
    page.wait_for_scores()
    steps = panel.steps
    # Words that fit raters: none of them is the truth.
    assert (steps.accept.text(), steps.keep.text()) == ("Take ben", "Keep anna")
    assert "ben is right here" in steps.accept.toolTip()
    heads = [panel.scores.horizontalHeaderItem(column).text() for column in (5, 6)]
    assert heads == ["anna\nml", "ben\nml"]
    assert "only&nbsp;in&nbsp;ben" in panel.difference.legend.text()
    assert [title.text() for title in panel._titles] == ["Corrected", "Against"]
    maps = [label_map_of(layer) for layer in layers]
    assert panel.raters.words.text() == f"Agreement: kappa {agreement(*maps).kappa:.2f}"
    assert panel._beside.isHidden()
    perform(viewer, "next_place")
    assert " only in " in steps.where.text() or " but " in steps.where.text()
    # A consensus: what both agree on stays, the rest is decided place by place.
    panel.raters.consensus.click()
    page.wait_for_scores()
    layer = panel.predicted_layer
    assert layer.name == "consensus of anna and ben"
    assert (steps.accept.text(), steps.keep.text()) == ("Take ben", "Keep anna")
    assert panel.raters.consensus.isHidden()
    perform(viewer, "next_place")
    place = steps._current
    perform(viewer, "accept_place")
    perform(viewer, "keep_place")
    expected = maps[0].data.copy()
    expected[place.indices] = maps[1].data[place.indices]
    np.testing.assert_array_equal(label_map_of(layer).data, expected)
    edits = session_for(viewer).view.edits_of(layer)
    assert edits.done[0].startswith("Take ben: ")
    panel._save.click()
    page.wait(lambda: "identical" in panel.messages.text)
    assert f"{len(steps.places)} places are left to decide" in panel.messages.text
    saved = versions(folder, "case1")[-1]
    assert (saved.version, saved.parent) == (3, "case1/v001.nii.gz")
    assert saved.parents == ("case1/v001.nii.gz", "case1/v002.nii.gz")
    # All cases in a table.
    panel.show_raters()
    (window,) = panel.findChildren(RatersWindow)
    page.wait(lambda: bool(window.pairs))
    assert [window.table.item(0, column).text() for column in range(3)] == ["case1", "anna and ben", "v001, v002"]
    chosen = tmp_path / "agreement"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(chosen), ""))
    window.save.click()
    assert chosen.with_suffix(".csv").read_text().splitlines()[1].startswith("case1,anna,ben,v001.nii.gz,v002.nii.gz,")
    window.close()

    # With nothing to compare with: volumes, and what has changed, after every stroke.
    panel._truth.setCurrentIndex(0)
    panel._compare(surface=True)
    table = panel.scores
    assert not table.isHidden()
    assert [table.isColumnHidden(column) for column in range(8)] == [False, *[True] * 4, False, True, False]
    loaded = maps[0]
    layer.brush_size, layer.selected_label = 5, 2
    layer.paint((3, 12, 10), 2)
    now = label_map_of(layer)
    for row, value in enumerate((1, 2)):
        ml = np.count_nonzero(now.data == value) * now.geometry.voxel_volume_ml
        assert float(page.cells(row)[5]) == pytest.approx(ml, abs=0.006)
        change = ml - np.count_nonzero(loaded.data == value) * now.geometry.voxel_volume_ml
        assert float(page.cells(row)[7]) == pytest.approx(change, abs=0.006)
        assert page.cells(row)[7][0] in "+-"
    panel.compare_with(layers[1])
    page.wait_for_scores()
    assert not any(table.isColumnHidden(column) for column in range(8))


def test_looks_have_one_key_each(page: Page) -> None:
    looks, viewer, layer = page.panel.looks, page.viewer, page.prediction
    truth = viewer.layers["truth"]
    perform(viewer, "contours")
    assert (layer.contour, truth.contour) == (1, 1)
    perform(viewer, "contours")
    assert (layer.contour, truth.contour) == (0, 0)
    perform(viewer, "fainter")
    assert (layer.opacity, truth.opacity) == (pytest.approx(0.5), pytest.approx(0.5))
    perform(viewer, "flash")
    assert (layer.opacity, truth.opacity) == (0, pytest.approx(0.5))
    page.wait(lambda: truth.opacity == 0)
    assert layer.opacity == pytest.approx(0.5)
    perform(viewer, "flash")
    assert (layer.opacity, truth.opacity) == (pytest.approx(0.5), pytest.approx(0.5))
    assert [looks.label.itemText(i) for i in range(looks.label.count())] == ["label 1", "label 2"]
    layer.selected_label = 1
    perform(viewer, "next_label")
    assert (layer.selected_label, looks.label.currentText()) == (2, "label 2")
    perform(viewer, "next_label")
    assert layer.selected_label == 1
    images = [one for one in viewer.layers if one.name in page.workspace.case.modalities]
    again = viewer.add_image(images[0].data, scale=images[0].scale, translate=images[0].translate, name="other")
    perform(viewer, "next_image")
    # One of the user's own is no modality of the case.
    assert images[0].visible
    assert again.visible
