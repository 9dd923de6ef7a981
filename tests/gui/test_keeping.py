"""Every edit is on disk as it happens and comes back exactly, in a real window and after kill -9."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_seg3d.cases.corrections import versions
from napari_seg3d.correction.journal import restore
from napari_seg3d.gui.kept import begin, left_over
from napari_seg3d.gui.restore_strip import RestoreStrip
from napari_seg3d.gui.session import session_for
from napari_seg3d.volumes.files import read_label_map, read_volume, write_label_map, write_volume
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap


def label_map(seed=0):
    affine = np.diag((1.0, 1.5, 3.0, 1.0))
    data = np.random.default_rng(seed).integers(0, 3, (9, 7, 5)).astype(np.uint8)
    return LabelMap(data, Geometry((9, 7, 5), affine))


def test_a_journal_needs_no_other_file_and_each_window_has_its_own(tmp_path):
    content = label_map()
    first, elsewhere = begin(tmp_path, "case 7", content)
    assert not elsewhere
    # Another layer of this window, and another window, which is told.
    second, elsewhere = begin(tmp_path, "case 7", content, own=frozenset({first.path}))
    assert not elsewhere
    third, elsewhere = begin(tmp_path, "case 7", content)
    assert elsewhere
    assert len({first.path, second.path, third.path}) == 3
    second.append((np.array([1, 2]), np.array([0, 0]), np.array([4, 4])), 2, "Painted")
    for journal in (first, second, third):
        journal.close()
    # Where nothing was edited nothing is offered, and nothing stays.
    (offer,) = left_over(tmp_path)
    assert (offer.words, offer.pending.path) == ("1 edit to case case 7", second.path)
    assert not first.path.exists()
    assert not third.path.exists()
    assert stat.S_IMODE(second.path.stat().st_mode) == 0o600
    back = restore(second.path, content.with_data(np.zeros_like(content.data)))
    expected = content.data.copy()
    expected[1:3, 0, 4] = 2
    np.testing.assert_array_equal(back.data, expected)


def predicted_study(study: Path) -> Path:
    """Give the study's first case a prediction that is a voxel off."""
    truth = read_label_map(study / "labels" / "case1.nii.gz")
    path = study.with_name("study-seg3d") / "predictions" / "run" / "case1.nii.gz"
    path.parent.mkdir(parents=True)
    write_label_map(path, truth.with_data(np.roll(truth.data, 1, axis=0)))
    return path


def wait_for(qtbot, condition):
    qtbot.waitUntil(lambda: bool(condition()), timeout=40000)


def shown_case(viewer, study, qtbot):
    """Open the study and its first case; return the session and the layer of the prediction."""
    session = session_for(viewer)
    session.workspace.open_dataset(study)
    wait_for(qtbot, lambda: session.workspace.dataset is not None)
    return session, reopened(viewer, session, qtbot)


def reopened(viewer, session, qtbot, case_id="case1"):
    shown = []
    session.view.shown.connect(lambda: shown.append(1))
    session.workspace.open_case(case_id)
    wait_for(qtbot, lambda: shown)
    return viewer.layers["prediction"]


def stroke(layer, where, label=2):
    with layer.block_history():
        for step in range(3):
            layer.paint((where[0], where[1], where[2] + step), label)


def test_edits_are_offered_after_a_crash_and_restored_as_one_step(viewer, study, qtbot, tmp_path):
    predicted_study(study)
    session, layer = shown_case(viewer, study, qtbot)
    keeper = session.keeper
    layer.visible = True
    stroke(layer, (5, 5, 5))
    stroke(layer, (6, 10, 6), 1)
    layer.undo()
    stroke(layer, (3, 12, 8))
    keeper.wait()
    journal = keeper._layers[layer].kept.journal
    assert journal.wait_written()
    expected = np.array(layer.data)
    crashed = journal.path.read_bytes()
    notes = journal.path.with_suffix(".images.json").read_bytes()
    # As after a crash: what lay on the disk then lies there again, and nobody holds it.
    keeper.discard_edits([layer])
    session.workspace.close_case()
    keeper.wait()
    assert not journal.path.exists()
    journal.path.write_bytes(crashed)
    journal.path.with_suffix(".images.json").write_bytes(notes)

    strip = RestoreStrip(keeper, session.workspace)
    viewer.window.add_dock_widget(strip, name="Restore", area="right")
    layer = reopened(viewer, session, qtbot)
    wait_for(qtbot, lambda: keeper.offers)
    assert "Restore 4 edits to case case1?" in strip.text
    before = np.array(layer.data)
    strip.restore.click()
    wait_for(qtbot, lambda: not np.array_equal(layer.data, before))
    np.testing.assert_array_equal(layer.data, expected)
    assert not keeper.offers
    # It goes on in the same journal, and the restoring is one step.
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    layer.redo()
    stroke(layer, (2, 3, 4))
    keeper.wait()
    journal = keeper._layers[layer].kept.journal
    assert journal.wait_written()
    assert journal.edits == 1 + 4 + 3

    # A save that was read again is where the journal begins anew.
    saved = []
    session.saver.saved.connect(lambda _layer, path: saved.append(path))
    session.saver.save_version(layer)
    wait_for(qtbot, lambda: saved)
    keeper.wait()
    assert journal.edits == 0
    session.workspace.close_case()
    keeper.wait()
    assert not journal.path.exists()
    assert [one.version for one in versions(session.workspace.corrections_folder, "case1")] == [1]


def test_an_image_that_changed_since_is_told_and_nothing_is_applied_blindly(viewer, study, qtbot):
    prediction = predicted_study(study)
    session, layer = shown_case(viewer, study, qtbot)
    keeper = session.keeper
    layer.visible = True
    stroke(layer, (5, 5, 5))
    keeper.wait()
    assert keeper._layers[layer].kept.journal.wait_written()
    expected = np.array(layer.data)
    session.workspace.close_case()  # without the question: the edits stay on disk
    keeper.wait()
    image = study / "images" / "case1.nii.gz"
    volume = read_volume(image)
    image.unlink()
    write_volume(image, type(volume)(volume.data + 1, volume.geometry))
    other = read_label_map(prediction)
    write_label_map(prediction, other.with_data(np.zeros_like(other.data)), overwrite=True)

    layer = reopened(viewer, session, qtbot)
    wait_for(qtbot, lambda: keeper.offers)
    strip = RestoreStrip(keeper, session.workspace)
    viewer.window.add_dock_widget(strip, name="Restore", area="right")
    strip.restore.click()
    wait_for(qtbot, lambda: keeper.offers and keeper.offers[0].doubt)
    assert "case1.nii.gz has changed" in strip.text
    assert "image" in strip.text
    assert not layer.data.any()
    strip.restore.click()
    wait_for(qtbot, lambda: "restored" in [layer.name for layer in viewer.layers])
    # What is shown stays as it is; what was painted comes as a layer of its own.
    assert not layer.data.any()
    np.testing.assert_array_equal(viewer.layers["restored"].data, expected)

    # What somebody draws in a layer of his own is kept from its first stroke.
    drawn = viewer.add_labels(np.zeros_like(layer.data), scale=layer.scale, translate=layer.translate, name="drawn")
    drawn.paint((4, 4, 4), 1)
    drawn.paint((4, 8, 8), 2)
    keeper.wait()
    kept = keeper._layers[drawn].kept
    assert kept.journal.wait_written()
    assert (kept.journal.edits, kept.case_id) == (1 + 2, "case1")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_every_written_stroke_survives_kill_9():
    script = Path(__file__).parents[2] / "benchmarks" / "journal_window.py"
    command = [sys.executable, script, "--kills", "5", "--strokes", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "5 painters killed" in done.stdout
