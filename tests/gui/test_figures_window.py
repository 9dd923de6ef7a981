"""The figures of the open case: what is chosen is drawn, what cannot be is told, the blind test counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from qtpy.QtCore import QPointF, Qt
from qtpy.QtWidgets import QFileDialog

from napari_seg3d.comparison.gallery import KINDS, Choice, Material, draw
from napari_seg3d.comparison.panel_figures import truth_is_first
from napari_seg3d.gui.figure_tasks import Drawing
from napari_seg3d.gui.figures_window import FiguresWindow, Picture
from napari_seg3d.gui.workspace import Workspace


class Window:
    """The window on a case, with a workspace that draws at once."""

    def __init__(self, workspace: Workspace, material: Material | None, qtbot: Any) -> None:
        self.material = material
        self.window = FiguresWindow(workspace, lambda: self.material)
        qtbot.addWidget(self.window)

    def choose(self, kind: str, plane: str | None = "axial", slices: str = "", structure: str = "") -> Drawing | None:
        window = self.window
        window.kind.setCurrentIndex(window.kind.findData(kind))
        window._enable()
        window.plane.setCurrentIndex(max(0, window.plane.findData(plane)))
        window.structure.setCurrentIndex(max(0, window.structure.findData(structure)))
        window.slices.setText(slices)
        window.draw()
        return window._drawing


def pixels(choice: Choice, material: Material, *, revealed: bool = False) -> np.ndarray:
    figure = draw(choice, material, revealed=revealed)
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())


@pytest.fixture
def material(tiny_case: Any) -> Material:
    case = tiny_case(0)
    predicted = case.truth.with_data(np.roll(case.truth.data, 1, 0))
    return Material("case00", predicted, case.truth, dict(case.modalities))


@pytest.fixture
def shown(workspace: Workspace, material: Material, qtbot: Any) -> Window:
    return Window(workspace, material, qtbot)


def test_what_is_chosen_is_what_is_drawn(shown: Window, material: Material) -> None:
    drawing = shown.choose("slices")
    assert np.array_equal(drawing.pixels, pixels(Choice("slices"), material))
    drawing = shown.choose("slices", "coronal", "9, 12", "oedema")
    wanted = Choice("slices", plane="coronal", all_planes=False, slices=(9, 12), structure="oedema")
    assert np.array_equal(drawing.pixels, pixels(wanted, material))
    for kind in KINDS:
        assert shown.choose(kind).figure is not None, shown.window.words.text()
    assert [shown.window.structure.itemText(i) for i in range(3)] == ["any label", "oedema", "enhancing tumour"]


def test_only_what_matters_can_be_chosen(shown: Window) -> None:
    window = shown.window
    window.show()
    for kind, visible in (
        ("slices", (True, True, True, False)),
        ("panels", (True, False, False, False)),
        ("blind", (False, False, False, False)),
        ("curves", (False, False, False, True)),
    ):
        shown.choose(kind)
        boxes = (window.plane, window.slices, window.structure, window.run)
        assert tuple(box.isVisible() for box in boxes) == visible
    window.kind.setCurrentIndex(window.kind.findData("panels"))
    window._enable()
    assert window.plane.itemText(0) == "three planes"


def test_wishes_that_cannot_be_met_are_answered_in_words(shown: Window) -> None:
    window = shown.window
    for slices, words in (("900", "no axial slice 900"), ("two", "whole numbers from 0")):
        assert shown.choose("slices", slices=slices) is None
        assert words in window.words.text()
        assert window.picture.is_empty
        assert not window.save_button.isEnabled()
    shown.choose("curves")
    assert "no run" in window.words.text()
    shown.material = None
    shown.choose("slices")
    assert "Choose a prediction and a truth" in window.words.text()


def test_the_blind_test_is_revealed_by_a_click_and_counts(shown: Window, material: Material) -> None:
    window = shown.window
    right = 0
    for number in range(3):
        drawing = shown.choose("blind") if number == 0 else window._drawing
        assert np.array_equal(drawing.pixels, pixels(Choice("blind", seed=number), material))
        assert "truth" in window.words.text()
        assert "A is" not in window.words.text()
        first = truth_is_first("case00", number)
        guess_left = number != 1
        right += guess_left == first
        window.picture.clicked.emit(0.2 if guess_left else 0.8)
        answer = pixels(Choice("blind", seed=number), material, revealed=True)
        assert np.array_equal(window._drawing.pixels, answer)
        assert window.words.text().startswith(f"{'A' if first else 'B'} is the truth. {right} of {number + 1} right")
        window.picture.clicked.emit(0.5)


def test_a_figure_is_saved_as_it_is_shown(shown: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = shown.choose("confusion")
    chosen = tmp_path / "figure"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(chosen), ""))
    shown.window.save_button.click()
    written = imread(tmp_path / "figure.png")
    assert np.array_equal(np.rint(written * 255).astype(np.uint8), drawing.pixels)
    assert "Saved" in shown.window.words.text()
    chosen = tmp_path / "no folder" / "x.png"
    (tmp_path / "no folder").write_text("a file")
    shown.window.save()
    assert "Saved" not in shown.window.words.text()


def test_curves_of_a_run(workspace: Workspace, trained_study: Path, material: Material, qtbot: Any) -> None:
    workspace.open_dataset(trained_study)
    shown = Window(workspace, material, qtbot)
    assert shown.choose("curves").figure is not None
    assert shown.window.run.currentText() == "tiny"


def test_a_hidden_window_waits_with_drawing(shown: Window, qtbot: Any) -> None:
    shown.window.refresh()
    assert not shown.window._settle.isActive()
    shown.window.show()
    qtbot.waitUntil(lambda: shown.window._drawing is not None, timeout=30_000)
    before = shown.window._drawing
    shown.window.refresh()
    qtbot.waitUntil(lambda: shown.window._drawing is not before, timeout=30_000)


def test_a_picture_keeps_its_proportions_and_tells_where_it_was_clicked(qtbot: Any) -> None:
    picture = Picture()
    qtbot.addWidget(picture)
    picture.resize(400, 300)
    picture.show_pixels(np.full((50, 100, 4), 255, np.uint8))
    place = picture._place()
    assert (place.width(), place.height()) == (400, 200)
    picture.show_pixels(np.full((300, 100, 4), 255, np.uint8))
    place = picture._place()
    with qtbot.waitSignal(picture.clicked) as clicked:
        qtbot.mouseClick(picture, Qt.MouseButton.LeftButton, pos=QPointF(place.left() + 25, 10).toPoint())
    assert clicked.args[0] == pytest.approx(0.25, abs=0.02)
