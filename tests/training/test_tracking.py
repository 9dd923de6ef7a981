"""TensorBoard files say what the recorded events say, in TensorBoard's own reading."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from napari_seg3d.events import EpochDone, Finished, Step, Validated, Warned, result_of
from napari_seg3d.training.loop import resume, train
from napari_seg3d.training.run import RunFolder, looks_overfitted, read_history
from napari_seg3d.training.tracking import TENSORBOARD, TensorBoard, command, scalars

reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def curves(run):
    """What TensorBoard's reader finds: tag -> [(step, value), …]."""
    reader = reading.EventAccumulator(str(run / TENSORBOARD), size_guidance={reading.SCALARS: 0})
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def expected(run):
    told = {}
    for event in read_history(run):
        for tag, value in scalars(event):
            told.setdefault(tag, []).append((event.steps if isinstance(event, EpochDone) else event.step, value))
    return told


def assert_same(run):
    found, told = curves(run), expected(run)
    assert found.keys() == told.keys()
    for tag, points in told.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in points], rel=1e-6)


@pytest.fixture
def cases(tiny_case):
    return [tiny_case(i) for i in range(4)]


def done(epoch, loss=0.5):
    return EpochDone(epoch, 9, loss, 1e-3, 10 * epoch, 6.0 * epoch, None, {"core": 0.2 * loss, "rim": 0.4 * loss})


def validated(epoch, mean=0.5):
    return Validated(epoch, 10 * epoch, {"core": mean}, mean, {}, True, 6.0 * epoch, 1 - mean)


def test_a_training_is_shown_by_class_and_rightly_scaled(tmp_path, cases, tiny_plan):
    run = tmp_path / "run"
    events = list(train(tiny_plan(validate_every=2), cases[:2], run, validation=cases[2:], threads=1))
    found = curves(run)
    assert found.keys() == {
        "loss/train", "loss/validation", "dice/train", "dice/validation", "learning_rate",
        "dice_train/oedema", "dice_train/enhancing_tumour", "dice_validation/oedema",
        "dice_validation/enhancing_tumour",
    }  # fmt: skip
    rounds = [e for e in events if isinstance(e, EpochDone)]
    (check,) = [e for e in events if isinstance(e, Validated)]
    losses = [e.loss for e in events if isinstance(e, Step)]
    # Each curve is divided by its own count: rounds of three steps, a validation of two cases after every second round.
    assert [step for step, _ in found["loss/train"]] == [3, 6]
    assert found["loss/train"][1][1] == pytest.approx(sum(losses[3:]) / 3)
    by_case = [scores["oedema"] for scores in check.by_case.values()]
    assert found["dice_validation/oedema"] == [(6, pytest.approx(sum(by_case) / 2))]
    assert found["dice_train/oedema"][0][1] == pytest.approx(rounds[0].dice["oedema"])
    assert_same(run)
    assert str(run / "tensorboard") in command(run)
    assert not any(os.uname().nodename in path.name for path in (run / TENSORBOARD).iterdir())


def test_a_stopped_training_goes_on_in_its_curves(tmp_path, cases, tiny_plan):
    run = tmp_path / "run"
    for kind in (EpochDone, Validated, Step, EpochDone):
        events = resume(run, cases) if run.exists() else train(tiny_plan(), cases[:3], run, validation=cases[3:])
        next(e for e in events if isinstance(e, kind))
        events.close()
        assert_same(run)
    result_of(resume(run, cases))
    assert_same(run)
    assert len(curves(run)["loss/train"]) == 2


def test_a_repeated_round_replaces_the_earlier_one(tmp_path):
    run = RunFolder(tmp_path)

    def session(*events):
        board = TensorBoard(run)
        for event in events:
            run.record(event)
            assert not board.add(event)
        board.close()

    session(done(1), validated(1), done(2), validated(2), done(3))
    assert_same(tmp_path)
    # Killed; the checkpoint is from before round 2, and within the session the training goes back once more.
    session(done(2, 0.4), validated(2, 0.7), done(3, 0.3), validated(3), done(2, 0.35), validated(2, 0.8))
    assert curves(tmp_path)["loss/train"][1] == (20, pytest.approx(0.35))
    session(done(3, 0.2), validated(3))
    assert_same(tmp_path)
    # Only the validation was missing, and was made twice.
    session(done(4))
    session(validated(4))
    session(validated(4, 0.9))
    assert_same(tmp_path)
    assert [step for step, _ in curves(tmp_path)["dice/validation"]] == [10, 20, 30, 40]


def test_a_run_from_before_shows_all_its_rounds(tmp_path):
    run = RunFolder(tmp_path)
    for event in (done(1), validated(1), done(2)):
        run.record(event)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(
            '{"event": "EpochDone", "epoch": 3, "epochs": 9, "loss": 0.25, "learning_rate": 0.001, "steps": 30, '
            '"elapsed_s": 18.0, "seconds_left": null}\n'
        )
    board = TensorBoard(run)
    run.record(done(4))
    assert not board.add(done(4))
    board.close()
    assert [step for step, _ in curves(tmp_path)["loss/train"]] == [10, 20, 30, 40]
    assert [step for step, _ in curves(tmp_path)["dice/train"]] == [10, 20, 40]
    assert "train dice core" in (run.write_history(), (tmp_path / "history.csv").read_text())[1]


def test_what_cannot_be_written_never_breaks_a_training(tmp_path, cases, tiny_plan):
    run = tmp_path / "run"
    told = []
    for event in train(tiny_plan(), cases[:3], run, validation=cases[3:], threads=1):
        if isinstance(event, Step) and not (run / TENSORBOARD).exists():
            (run / TENSORBOARD).write_text("a file where the folder should be")
        told.append(event)
    assert isinstance(told[-1], Finished)
    assert sum("TensorBoard" in e.message for e in told if isinstance(e, Warned)) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_told_once(tmp_path):
    run = RunFolder(tmp_path)
    board = TensorBoard(run)
    run.record(done(1))
    assert not board.add(done(1))
    (written,) = (tmp_path / TENSORBOARD).iterdir()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, board._file._records._writer.fileno())
    os.close(full)
    run.record(done(2))
    assert "No space left" in board.add(done(2))
    assert not board.add(done(3))
    board.close()
    assert written.stat().st_size


def test_over_fitting_is_suspected_when_the_losses_part():
    def history(training, validation):
        for epoch, (ours, theirs) in enumerate(zip(training, validation, strict=True), start=1):
            yield done(epoch, ours)
            yield replace(validated(epoch), loss=theirs)

    falling = [1 / (1 + i) for i in range(10)]
    assert looks_overfitted(list(history(falling, [1, 0.8, 0.7, 0.6, 0.6, 0.62, 0.66, 0.7, 0.75, 0.8])))
    assert not looks_overfitted(list(history(falling, [value + 0.1 for value in falling])))
    assert not looks_overfitted(list(history([0.5] * 10, [0.6, 0.7] * 5)))  # noise
    assert not looks_overfitted(list(history(falling[::-1], falling[::-1])))  # both rise: something else is wrong
    assert not looks_overfitted(list(history(falling[:4], [0.5, 0.6, 0.7, 0.8])))  # too early to tell
    assert not looks_overfitted([replace(validated(1), loss=None)])
