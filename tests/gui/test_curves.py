"""Curves follow the events of a training, in bounded memory and with values that can be read."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QPointF
from qtpy.QtWidgets import QWidget

from napari_seg3d.events import EpochDone, Saved, Step, Validated
from napari_seg3d.gui.curves import POINTS, CurvesView, Series, TrainingCurves, readable
from napari_seg3d.gui.pacer import LONGEST_MS, SHORTEST_MS, Pacer

COLOURS = {"anterior": "#f28e2b", "posterior": "#17becf"}


def training(epochs, steps=10):
    for epoch in range(1, epochs + 1):
        for step in range(steps):
            number = (epoch - 1) * steps + step + 1
            yield Step(number, epoch - 1, 1 / number, 1e-3, number * 6.0)
        yield EpochDone(epoch, epochs, 1 / epoch, 1e-3, epoch * steps, epoch * steps * 6.0)
        if epoch % 2 == 0:
            dice = {"anterior": epoch / 20, "posterior": epoch / 40}
            mean = sum(dice.values()) / 2
            yield Validated(epoch, epoch * steps, dice, mean, {}, epoch == 6, epoch * steps * 6.0)


@pytest.fixture
def view(qtbot):
    view = CurvesView()
    qtbot.addWidget(view)
    view.clear(COLOURS)
    return view


def test_a_series_stays_bounded_and_keeps_its_shape():
    series = Series()
    for i in range(50_000):
        series.add(i, i / 10, 3.0 * i)
    epochs, values = series.along("epochs")
    assert POINTS <= len(epochs) < 2 * POINTS
    assert np.allclose(values, 3 * epochs)
    assert epochs[0] < 50
    assert epochs[-1] > 49_900


def test_steps_lead_up_to_the_mean_of_their_epoch():
    curves = TrainingCurves(steps_per_epoch=10)
    for event in training(8):
        curves.add(event)
    epochs, losses = curves.step_loss.along("epochs")
    assert np.allclose(epochs, np.arange(1, 81) / 10)
    assert losses[19] == pytest.approx(1 / 20)
    assert curves.best == (6.0, 6.0, pytest.approx(6 * 3 / 80))


def test_the_mean_of_an_epoch_is_drawn_on_the_line_of_its_steps(view):
    view.show_history(training(4), COLOURS)
    assert view._loss_line.getData()[0].tolist() == [0.5, 1.5, 2.5, 3.5]
    view.set_axis("minutes")
    assert view._loss_line.getData()[0].tolist() == [0.5, 1.5, 2.5, 3.5]


def judged(epochs):
    for epoch in range(1, epochs + 1):
        told = {
            "D loss": 0.25,
            "D accuracy": epoch / 10,
            "D updated": 0.5,
            "G loss": 5 / epoch,
            "voxel loss": 1 / epoch,
        }
        yield EpochDone(epoch, epochs, 5 / epoch, 1e-3, epoch * 10, epoch * 60.0, None, {"anterior": epoch / 10}, told)
        yield Validated(epoch, epoch * 10, {"anterior": 0.5}, 0.5, {}, False, epoch * 60.0, 2 / epoch)


def test_training_and_validation_are_drawn_together(view):
    view.show_history(judged(4), COLOURS)
    # Of a generator's loss only the part that validation measures too.
    assert view._loss_line.getData()[1].tolist() == [1, 1 / 2, 1 / 3, 1 / 4]
    assert view._validation_line.getData()[1].tolist() == [2, 1, 2 / 3, 1 / 2]
    assert view._training_lines["anterior"].getData()[1].tolist() == [0.1, 0.2, 0.3, 0.4]
    colours = {
        line.opts["pen"].color().name() for line in (view._training_lines["anterior"], view._dice_lines["anterior"])
    }
    assert len(colours) == 1
    assert "validation&nbsp;<b>0.500</b>" in view._reading.text()


def test_a_discriminator_has_a_plot_of_its_own_that_goes_with_it(view, qtbot):
    view.resize(380, 480)
    view.show_history(judged(4), COLOURS)
    view.show()
    qtbot.waitExposed(view)
    assert set(view._detail_lines) == {"D loss", "D accuracy", "D updated", "G loss", "voxel loss"}
    assert view._detail_lines["D accuracy"] in view._shares.addedItems
    assert view._detail_lines["G loss"] in view._detail_plot.items
    assert "D&nbsp;accuracy&nbsp;<b>0.40</b>" in view._detail_legend.text()
    box = view._detail_plot.vb
    qtbot.waitUntil(lambda: 3.9 < box.viewRange()[0][1] < 4.5)
    view._mouse_moved(QPointF(box.mapViewToScene(QPointF(2.0, 1.0))))
    assert "D&nbsp;accuracy&nbsp;<b>0.20</b>" in view._detail_legend.text()
    view.show_history(training(4), COLOURS)
    assert not view._detail_lines
    assert not view._detail_legend.isVisible()
    assert not view._detail_plot.isVisible()
    qtbot.waitUntil(lambda: view._dice_plot.geometry().bottom() > 0.95 * view._plots.ci.geometry().bottom())
    view.show_history(judged(2), COLOURS)
    assert view._detail_plot.isVisible()


def test_other_events_change_nothing():
    assert not TrainingCurves().add(Saved("x", "model"))


def test_many_events_are_one_drawing_and_none_while_hidden(view, qtbot):
    drawn = []
    view.about_to_draw.connect(lambda: drawn.append(1))
    for event in training(30):
        view.add(event)
    qtbot.wait(SHORTEST_MS + 300)
    assert not drawn
    view.show()
    qtbot.waitUntil(lambda: len(drawn) == 1, timeout=5000)
    for event in training(30):
        view.add(event)
    qtbot.waitUntil(lambda: len(drawn) == 2, timeout=6000)
    qtbot.wait(SHORTEST_MS + 300)
    assert len(drawn) == 2


def test_the_pace_follows_what_drawing_costs(qtbot):
    widget = QWidget()
    qtbot.addWidget(widget)
    costs_s = [0.03, 0.0]
    pacer = Pacer(widget, lambda: time.sleep(costs_s.pop(0)))
    widget.show()
    qtbot.waitExposed(widget)
    pacer.want()
    qtbot.waitUntil(lambda: len(costs_s) == 1)
    qtbot.waitUntil(lambda: pacer.interval_ms >= 2000)
    assert pacer.interval_ms <= LONGEST_MS
    pacer.want()
    qtbot.waitUntil(lambda: not costs_s, timeout=6000)
    qtbot.waitUntil(lambda: pacer.interval_ms < 2000)


def test_the_legend_names_classes_in_their_colours_with_the_newest_value(view):
    view.show_history(training(8), COLOURS)
    legend = view._dice_legend.text()
    assert "anterior&nbsp;<b>0.400</b>" in legend
    assert readable(COLOURS["anterior"], view._colours.background) in legend
    assert "best" in legend
    assert "loss <b>0.125</b> · epoch 8 · 8.0 min" in view._reading.text()


def test_the_mouse_reads_values_and_leaving_brings_back_the_newest(view, qtbot):
    view.resize(380, 420)
    view.show_history(training(8), COLOURS)
    view.show()
    qtbot.waitExposed(view)
    view.set_axis("minutes")
    box = view._dice_plot.vb
    qtbot.waitUntil(lambda: 7.9 < box.viewRange()[0][1] < 9)
    view._mouse_moved(QPointF(box.mapViewToScene(QPointF(4.0, 0.5))))
    assert "anterior&nbsp;<b>0.200</b>" in view._dice_legend.text()
    assert "4.0 min" in view._reading.text()
    view.leaveEvent(None)
    assert "anterior&nbsp;<b>0.400</b>" in view._dice_legend.text()


def test_names_are_shown_as_text_not_as_markup(view):
    view.show_history([Validated(1, 1, {"<img src=x>": 0.5}, 0.5, {}, True, 1.0)], {})
    assert "<img" not in view._dice_legend.text()


@pytest.mark.parametrize("background", ["#2e333e", "#dddad8"])
@pytest.mark.parametrize("color", ["#f0ece0", "#000000", "#4169e1", "#ffffff", "#dddad8"])
def test_every_label_colour_can_be_seen_on_both_themes(color, background):
    def luminance(text):
        parts = np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    line, ground = luminance(readable(color, background)), luminance(background)
    assert (max(line, ground) + 0.05) / (min(line, ground) + 0.05) >= 1.9


def test_the_theme_can_change_while_it_is_open(view):
    from napari.qt import get_stylesheet
    from napari.settings import get_settings

    dark = view._colours
    for theme in ("light", "dark"):
        get_settings().appearance.theme = theme
        view.setStyleSheet(get_stylesheet(theme))
        assert (view._colours == dark) == (theme == "dark")
