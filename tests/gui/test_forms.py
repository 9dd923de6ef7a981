"""A settings model becomes a form that says units, ranges and errors, and hands out only what the user changed."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QCheckBox, QComboBox, QLabel, QLineEdit, QSpinBox, QToolButton

from napari_seg3d.gui.editors import NumberBox
from napari_seg3d.gui.forms import SettingsForm
from napari_seg3d.gui.setting import setting_of


class Inner(BaseModel):
    model_config = ConfigDict(frozen=True)
    rotation_degrees: float = Field(15.0, ge=0, le=180, description="Largest rotation.")
    mirror: tuple[Literal["left-right", "up-down"], ...] = ()


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    patch_voxels: tuple[Annotated[int, Field(ge=8, le=256)], Annotated[int, Field(ge=8, le=256)]] = Field(
        (32, 48), description="Size of a patch."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Step size.")
    epochs: int | None = Field(None, ge=1, le=1000)
    rule: Literal["adam", "sgd"] = "adam"
    mixed: bool = False
    widths: tuple[Annotated[int, Field(ge=1)], ...] = (16, 32)
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _even(self) -> Settings:
        if any(size % 2 for size in self.patch_voxels):
            raise ValueError("patch_voxels must be even")
        return self


ALL = {
    "Patches": ("patch_voxels", "widths"),
    "Learning": ("learning_rate", "epochs", "rule", "mixed"),
    "": ("inner.rotation_degrees", "inner.mirror", "inner.not_there"),
}


@pytest.fixture
def form(qtbot):
    form = SettingsForm(ALL)
    qtbot.addWidget(form)
    form.show_base(Settings())
    return form


def editor(form, name, kind):
    label = setting_of(Settings(), name).label
    widget = next(w for w in form.findChildren(object) if getattr(w, "accessibleName", str)() == label)
    return widget if isinstance(widget, kind) else widget.findChildren(kind)


def texts(form):
    return [label.text() for label in form.findChildren(QLabel) if not label.isHidden()]


def test_a_setting_is_described_by_its_field():
    setting = setting_of(Settings(), "inner.rotation_degrees")
    assert (setting.label, setting.unit) == ("Rotation", "°")
    assert setting.tooltip == "Largest rotation.\nAllowed: from 0 to 180 °."
    assert setting_of(Settings(), "epochs").optional
    assert setting_of(Settings(), "inner.not_there") is None


def test_units_and_headings_are_shown(form):
    assert {"Patch (voxels)", "Rotation (°)", "<b>Patches</b>"} <= set(texts(form))
    assert form.changes() == {}
    assert form.problem == ""


def test_only_changes_leave_the_form(form, qtbot):
    with qtbot.waitSignal(form.changed):
        editor(form, "learning_rate", NumberBox).setValue(3e-4)
    editor(form, "patch_voxels", QSpinBox)[1].setValue(64)
    editor(form, "mixed", QCheckBox).setChecked(True)
    box = editor(form, "rule", QComboBox)
    box.setCurrentIndex(1)
    box.activated.emit(1)
    editor(form, "epochs", QSpinBox).setValue(20)
    editor(form, "inner.mirror", QCheckBox)[1].setChecked(True)
    assert form.changes() == {
        "learning_rate": 3e-4, "patch_voxels": (32, 64), "mixed": True, "rule": "sgd", "epochs": 20,
        "inner.mirror": ("up-down",),
    }  # fmt: skip
    assert form.problem == ""


def test_a_new_base_moves_only_what_was_left_alone(form):
    editor(form, "learning_rate", NumberBox).setValue(3e-4)
    form.show_base(Settings(patch_voxels=(64, 64), learning_rate=0.5))
    assert [box.value() for box in editor(form, "patch_voxels", QSpinBox)] == [64, 64]
    assert editor(form, "learning_rate", NumberBox).value() == 3e-4
    form.show_base(Settings(learning_rate=3e-4))
    assert form.changes() == {}


def test_back_to_the_planned_value(form):
    editor(form, "learning_rate", NumberBox).setValue(0.25)
    undo = next(b for b in form.findChildren(QToolButton) if b.accessibleName() == "Reset Learning rate")
    assert undo.toolTip() == "Back to the planned value: 0.001"
    undo.click()
    assert form.changes() == {}
    assert editor(form, "learning_rate", NumberBox).value() == 1e-3


def test_a_value_set_back_by_hand_is_no_change(form):
    box = editor(form, "learning_rate", NumberBox)
    box.setValue(0.25)
    assert form.changes() == {"learning_rate": 0.25}
    box.setValue(1e-3)
    assert form.changes() == {}


def test_contradictions_are_said_in_words(form):
    editor(form, "patch_voxels", QSpinBox)[0].setValue(33)
    assert form.problem == "Patch_voxels must be even."
    assert "⚠ Patch_voxels must be even." in texts(form)
    editor(form, "patch_voxels", QSpinBox)[0].setValue(34)
    assert form.problem == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [("16, much", "Widths: Expected a whole number; found 'much'."), ("16, 0", "greater than or equal to 1")],
)
def test_text_that_is_no_setting_is_said_in_words(form, text, problem):
    line = editor(form, "widths", QLineEdit)
    line.setText(text)
    line.editingFinished.emit()
    assert problem in form.problem


def test_numbers_of_any_size_are_readable(qtbot):
    box = NumberBox()
    qtbot.addWidget(box)
    for value, text in ((1e-7, "1e-07"), (0.0003, "0.0003"), (2500, "2500")):
        box.setValue(value)
        assert box.text() == text
    box.setRange(0, 1)
    box.lineEdit().setText("5e-4")
    box.interpretText()
    assert box.value() == 5e-4


def test_the_wheel_scrolls_the_page_not_the_numbers(form):
    box = editor(form, "learning_rate", NumberBox)
    box.clearFocus()
    where = QPointF(5, 5)
    wheel = QWheelEvent(
        where, where, QPoint(), QPoint(0, 120), Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(box, wheel)
    assert box.value() == 1e-3


def test_it_fits_a_narrow_dock(form):
    assert form.minimumSizeHint().width() <= 320
