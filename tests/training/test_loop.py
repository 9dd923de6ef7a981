"""A training reports, stops, resumes and fails as promised."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_seg3d.cases.case import CaseFiles, ImageFile
from napari_seg3d.errors import FileError, ModelError, Seg3dError
from napari_seg3d.events import EpochDone, Failed, Finished, Progress, Saved, Step, Validated, Warned, result_of
from napari_seg3d.model.checkpoint import Model, load_model, save_model
from napari_seg3d.training.learner import Learner, Made
from napari_seg3d.training.loop import resume, train
from napari_seg3d.training.run import RunFolder, list_runs, read_history
from napari_seg3d.volumes.files import read_label_map, write_label_map, write_volume


@pytest.fixture
def cases(tiny_case):
    return [tiny_case(i) for i in range(4)]


def weights_of(path):
    return load_model(path).weights


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_whole_training(tmp_path, cases, tiny_plan):
    run = tmp_path / "run"
    events = list(train(tiny_plan(), cases[:3], run, validation=cases[3:], threads=1, dataset="tiny"))
    steps = [e for e in events if isinstance(e, Step)]
    assert [e.step for e in steps] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(e.loss) for e in steps)
    assert [e.epoch for e in events if isinstance(e, EpochDone)] == [1, 2]
    validated = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in validated] == [3, 6]
    assert validated[0].best
    assert set(validated[0].dice) == {"oedema", "enhancing tumour"}
    assert validated[0].by_case.keys() == {"case03"}
    ends = [e for e in events if isinstance(e, Finished | Failed)]
    assert len(ends) == 1
    assert ends[0].result == run
    assert events[-1] is ends[0]

    names = {path.name for path in run.iterdir()}
    assert {"plan.json", "run.json", "model.safetensors", "model.json", "last.safetensors", "checkpoint.safetensors",
            "history.csv", "events.jsonl", "validation"} <= names  # fmt: skip
    assert RunFolder.open(run).facts().state == "finished"
    assert [e.epoch for e in read_history(run) if isinstance(e, EpochDone)] == [1, 2]
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert float(rows[1]["mean_dice"]) == pytest.approx(validated[1].mean_dice)
    predicted = read_label_map(run / "validation" / "case03.nii.gz")
    assert predicted.geometry.same_grid(cases[3].geometry)
    assert list_runs(tmp_path) == [run]


def test_it_learns(tmp_path, cases, tiny_plan):
    plan = tiny_plan(epochs=8, steps_per_epoch=25, learning_rate=1e-2)
    events = list(train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1))
    losses = [e.loss for e in events if isinstance(e, EpochDone)]
    assert losses[-1] < 0.7 * losses[0]
    assert [e.mean_dice for e in events if isinstance(e, Validated)][-1] > 0.6


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stop_and_resume_is_bit_exact(tmp_path, cases, tiny_plan, stop_at):
    plan = tiny_plan()
    result_of(train(plan, cases[:3], tmp_path / "whole", validation=cases[3:], threads=1))
    events = train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1)
    for event in events:
        if isinstance(event, Step) and event.step == stop_at:
            break
    events.close()
    assert RunFolder.open(tmp_path / "run").facts().state == "stopped"
    assert load_model(tmp_path / "run").history["step"] <= stop_at  # something to predict with at any moment

    again = list(resume(tmp_path / "run", cases))
    assert [e.step for e in again if isinstance(e, Step)] == list(range(stop_at + 1, 7))
    assert same(weights_of(tmp_path / "whole" / "last.safetensors"), weights_of(tmp_path / "run" / "last.safetensors"))
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))
    whole, stopped = read_history(tmp_path / "whole"), read_history(tmp_path / "run")
    assert [e.loss for e in whole if isinstance(e, EpochDone)] == [e.loss for e in stopped if isinstance(e, EpochDone)]
    assert [e.dice for e in whole if isinstance(e, Validated)] == [e.dice for e in stopped if isinstance(e, Validated)]


@pytest.mark.parametrize("kind", [EpochDone, Validated, Saved, Progress])
def test_stopping_at_any_kind_of_event_can_be_resumed(tmp_path, cases, tiny_plan, kind):
    plan = tiny_plan()
    result_of(train(plan, cases[:3], tmp_path / "whole", validation=cases[3:], threads=1))
    events = train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1)
    next(e for e in events if isinstance(e, kind))
    events.close()
    result_of(resume(tmp_path / "run", cases))
    assert same(weights_of(tmp_path / "whole" / "last.safetensors"), weights_of(tmp_path / "run" / "last.safetensors"))
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))


CHILD = """
import sys
from pathlib import Path
import torch
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.events import Step
from napari_seg3d.model.plan import Plan
from napari_seg3d.training.loop import resume, train
torch.set_num_threads(1)
folder = Path(sys.argv[1])
cases = list(open_dataset(folder / "data"))
run = folder / "killed"
if (run / "run.json").exists():
    events = resume(run, cases, threads=1)
else:
    plan = Plan.from_json((folder / "plan.json").read_text())
    events = train(plan, cases[:3], run, validation=cases[3:], threads=1)
for event in events:
    print(type(event).__name__, getattr(event, "step", ""), getattr(event, "message", ""), flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_weights(tmp_path, cases, tiny_plan):
    plan = tiny_plan(steps_per_epoch=4)
    for case in cases:
        folder = tmp_path / "data" / case.id
        folder.mkdir(parents=True)
        for name, volume in case.modalities.items():
            write_volume(folder / f"{case.id}_{name}.nii.gz", volume)
        write_label_map(folder / f"{case.id}_seg.nii.gz", case.truth)
    (tmp_path / "plan.json").write_text(plan.to_json())
    from napari_seg3d.cases.dataset import open_dataset

    files = list(open_dataset(tmp_path / "data"))
    plan_for_files = plan.changed({"modalities": tuple(files[0].modalities)})
    (tmp_path / "plan.json").write_text(plan_for_files.to_json())
    result_of(train(plan_for_files, files[:3], tmp_path / "whole", validation=files[3:], threads=1))

    rng = np.random.default_rng(5)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        # Wait until it trains, then strike at a random moment.
        for line in child.stdout:
            if line.startswith(("Step", "Finished", "Failed")):
                break
        time.sleep(rng.uniform(0, 0.4))
        os.kill(child.pid, signal.SIGKILL)
        child.stdout.read()
        child.stdout.close()
        child.wait()
    result_of(resume(tmp_path / "killed", files, threads=1))
    ours, whole = tmp_path / "killed" / "last.safetensors", tmp_path / "whole" / "last.safetensors"
    assert same(weights_of(ours), weights_of(whole))
    assert not list((tmp_path / "killed").glob("*.tmp*"))


def test_a_budget_ends_in_time_and_validates_at_the_end(tmp_path, cases, tiny_plan):
    plan = tiny_plan(budget_s=6.0, steps_per_epoch=20)
    began = time.monotonic()
    events = list(train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1))
    assert time.monotonic() - began < 9
    steps = [e for e in events if isinstance(e, Step)]
    assert steps[-1].learning_rate < 0.2 * steps[0].learning_rate  # the schedule reached its end
    assert [e for e in events if isinstance(e, Validated)][-1].step == steps[-1].step
    assert isinstance(events[-1], Finished)


def test_without_validation_cases_the_newest_model_is_kept(tmp_path, cases, tiny_plan):
    events = list(train(tiny_plan(epochs=1), cases, tmp_path / "run", threads=1))
    assert any("no validation" in e.message for e in events if isinstance(e, Warned))
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "run" / "last.safetensors"))


def test_a_loss_that_is_no_number_ends_in_words(tmp_path, cases, tiny_plan):
    plan = tiny_plan(epochs=3)
    weights = Learner(plan, torch.device("cpu")).network.state_dict()
    weights["heads.0.bias"][0] = float("inf")
    save_model(tmp_path / "broken.safetensors", Model(plan, weights))
    events = list(train(plan, cases, tmp_path / "run", start=tmp_path / "broken.safetensors", threads=1))
    assert sum("left out" in e.message for e in events if isinstance(e, Warned)) == 4 * 3
    assert sum("back to step 0" in e.message for e in events if isinstance(e, Warned)) == 3
    assert isinstance(events[-1], Failed)
    assert "is no finite number since about step 0" in events[-1].message
    assert "learning rate" in events[-1].message
    assert RunFolder.open(tmp_path / "run").facts().state == "failed"


def test_a_case_with_nan_is_named(tmp_path, cases, tiny_plan):
    flair = cases[1].modalities["FLAIR"]
    data = flair.data.copy()
    data[3, 4, 5] = np.nan
    broken = replace(cases[1], modalities={**cases[1].modalities, "FLAIR": replace(flair, data=data)})
    events = list(train(tiny_plan(), [cases[0], broken], tmp_path / "run", threads=1))
    assert events[-1].message.startswith("Case case01: FLAIR holds NaN")


def test_one_bad_step_changes_nothing(tiny_plan):
    learner = Learner(tiny_plan(), torch.device("cpu"))
    before = {k: v.clone() for k, v in learner.network.state_dict().items()}
    bad = torch.full((2, 2, 16, 16, 8), float("nan")), torch.ones(2, 1, 16, 16, 8, dtype=torch.uint8)
    assert learner.learn(bad, 0.0) == [Made(1, None)]
    assert same(before, learner.network.state_dict())
    good = torch.randn(2, 2, 16, 16, 8), torch.ones(2, 1, 16, 16, 8, dtype=torch.uint8)
    (made,) = learner.learn(good, 0.0)
    assert made.step == 2
    assert made.loss is not None
    assert not same(before, learner.network.state_dict())
    assert learner.bad_steps == 0


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, cases, tiny_plan, tiny_case):
    def message(*args, **kwargs):
        (event,) = list(train(*args, **kwargs))
        assert isinstance(event, Failed)
        return event.message

    plan = tiny_plan()
    blank = [replace(case, truth=None) for case in cases]
    assert "None of the cases has a truth" in message(plan, blank, tmp_path / "run")
    assert "both training and validation" in message(plan, cases, tmp_path / "run", validation=cases[:1])
    assert "cuda:7" in message(plan, cases, tmp_path / "run", device="cuda:7")
    assert not (tmp_path / "run").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    assert "not empty" in message(plan, cases, tmp_path / "full")
    (tmp_path / "file").write_text("")
    assert "cannot be made" in message(plan, cases, tmp_path / "file" / "run")
    with pytest.raises(Seg3dError, match="label values"):
        result_of(train(plan, [tiny_case(0, values=(1, 7))], tmp_path / "odd"))


def test_two_trainings_do_not_share_a_folder(tmp_path, cases, tiny_plan):
    first = train(tiny_plan(), cases, tmp_path / "run", threads=1)
    next(e for e in first if isinstance(e, Step))
    with pytest.raises(Seg3dError, match="Another program is training"):
        result_of(resume(tmp_path / "run", cases))
    first.close()
    result_of(resume(tmp_path / "run", cases))


def test_resuming_needs_its_cases_and_a_whole_checkpoint(tmp_path, cases, tiny_plan):
    result_of(train(tiny_plan(epochs=1), cases, tmp_path / "run", threads=1))
    with pytest.raises(Seg3dError, match="case03"):
        result_of(resume(tmp_path / "run", cases[:3]))
    with pytest.raises(Seg3dError, match="Expected a training run"):
        result_of(resume(tmp_path, cases))
    file = tmp_path / "run" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(Seg3dError, match="damaged"):
        result_of(resume(tmp_path / "run", cases))


def test_fine_tuning_carries_over_by_name(tmp_path, cases, tiny_plan):
    result_of(train(tiny_plan(epochs=1), cases, tmp_path / "first", threads=1))
    start = weights_of(tmp_path / "first" / "last.safetensors")
    labels = [
        {"value": 5, "name": "enhancing tumour", "color": "#49c6f2"},
        {"value": 6, "name": "cyst", "color": "#ff0000"},
    ]
    plan = tiny_plan(modalities=("T1c", "FLAIR"), labels=labels)
    learner = Learner(plan, torch.device("cpu"))
    notes = learner.start_from(load_model(tmp_path / "first" / "last.safetensors"))
    ours = learner.network.state_dict()
    assert torch.equal(ours["down.0.0.weight"][:, 0], start["down.0.0.weight"][:, 1])  # T1c was second
    assert torch.equal(ours["heads.0.weight"][1], start["heads.0.weight"][2])  # enhancing tumour was third
    assert torch.equal(ours["heads.0.weight"][0], start["heads.0.weight"][0])
    assert any("cyst" in note for note in notes)
    with pytest.raises(ModelError, match="other widths"):
        Learner(tiny_plan(**{"network.widths": (3, 6, 12)}), torch.device("cpu")).start_from(
            load_model(tmp_path / "first")
        )


def test_fine_tuning_starts_where_the_model_was(tmp_path, cases, tiny_plan):
    result_of(train(tiny_plan(epochs=6, steps_per_epoch=15, learning_rate=5e-3), cases[:3], tmp_path / "a", threads=1))
    plan = tiny_plan(epochs=1, steps_per_epoch=2, learning_rate=1e-6)
    events = list(train(plan, cases[:3], tmp_path / "b", start=tmp_path / "a", threads=1))
    scratch = list(train(plan, cases[:3], tmp_path / "c", threads=1))
    first = [next(e.loss for e in run if isinstance(e, Step)) for run in (events, scratch)]
    assert first[0] < 0.7 * first[1]
    assert RunFolder.open(tmp_path / "b").facts().start_model == load_model(tmp_path / "a").sha256


def test_cases_on_disk_are_not_kept_in_memory(tmp_path, cases, tiny_plan):
    for name, volume in cases[0].modalities.items():
        write_volume(tmp_path / f"{name}.nii.gz", volume)
    write_label_map(tmp_path / "truth.nii.gz", cases[0].truth)
    images = {n: ImageFile(tmp_path / f"{n}.nii.gz") for n in cases[0].modalities}
    files = CaseFiles("disk", images, tmp_path / "truth.nii.gz", table=cases[0].truth.table)
    run = result_of(train(tiny_plan(epochs=1), [files], tmp_path / "run", threads=1))
    assert (run / "model.safetensors").is_file()
    with pytest.raises(FileError):
        RunFolder.open(tmp_path)


def test_early_stop_when_asked(tmp_path, cases, tiny_plan):
    plan = tiny_plan(epochs=60, patience=2, learning_rate=1e-9)
    events = list(train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1))
    assert [e.epoch for e in events if isinstance(e, EpochDone)][-1] < 60
    assert "stopped early" in events[-1].message


def test_a_diverging_training_goes_back_and_ends_well(tmp_path, cases, tiny_plan):
    plan = tiny_plan(
        epochs=12, steps_per_epoch=10, learning_rate=0.9, optimizer="sgd", momentum=0.9, schedule="constant",
        warmup_steps=100, clip_norm=1e6, weight_decay=0.0,
    )  # fmt: skip
    events = list(train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1))
    back = [e.message for e in events if isinstance(e, Warned) and "back to step" in e.message]
    # Whether this rate diverges at all is the machine's rounding; what may not happen is a model of no numbers.
    assert isinstance(events[-1], Finished) or back
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(tmp_path / "run").values())


HUNGRY = """
import resource, sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from napari_seg3d.cases.phantoms import brain_phantom
from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.events import result_of
from napari_seg3d.model.footprint import step_memory_mb
from napari_seg3d.model.planner import make_plan
from napari_seg3d.training.loop import train
torch.set_num_threads(1)
case = brain_phantom(1, shape=(56, 64, 32))
changes = {"steps_per_epoch": 1, "batch_size": 16}
plan = make_plan(result_of(fingerprint([case])), device="cpu", epochs=1, changes=changes)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
# Far from what 8 patches need, and from what 4 need: the big tensors fail, not the libraries' small change.
resource.setrlimit(resource.RLIMIT_AS, (used + int(0.37 * step_memory_mb(plan) * 2**20),) * 2)
for event in train(plan, [case], Path(sys.argv[1]), threads=1):
    print(type(event).__name__, getattr(event, "message", ""), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as only Linux does")
def test_a_full_memory_shrinks_batch_or_patch_and_goes_on(tmp_path):
    from pathlib import Path

    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(tmp_path / "run"), str(Path(__file__).parents[2])],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert "Warned The memory is full: going on with 8 patches" in done.stdout, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith("Finished"), done.stdout
    run = RunFolder.open(tmp_path / "run")
    # How often it had to shrink depends on what Python and its libraries take beside it.
    assert 1 <= run.plan.batch_size <= 4
    assert load_model(tmp_path / "run").plan == run.plan


def test_a_finished_run_learns_on_with_more_cases(tmp_path, cases, tiny_plan):
    run = result_of(train(tiny_plan(), cases[:2], tmp_path / "run", validation=cases[3:], threads=1, test_ids=["x"]))
    with pytest.raises(Seg3dError, match="number of epochs"):
        result_of(resume(run, cases, add=["case02"]))
    with pytest.raises(Seg3dError, match="number of epochs"):
        result_of(resume(run, cases, more_s=10))
    events = list(resume(run, cases, more_epochs=2, add=["case02", "case03"]))
    steps = [e for e in events if isinstance(e, Step)]
    assert [e.step for e in steps] == [7, 8, 9, 10, 11, 12]
    assert steps[0].learning_rate == pytest.approx(tiny_plan().learning_rate / 3)
    assert steps[-1].learning_rate < 0.3 * steps[0].learning_rate
    facts = RunFolder.open(run).facts()
    assert facts.train_ids == ("case00", "case01", "case02")  # not the one that judges
    assert facts.state == "finished"
    assert RunFolder.open(run).plan.epochs == 4
    assert [e.epoch for e in read_history(run) if isinstance(e, EpochDone)] == [1, 2, 3, 4]


def test_going_on_can_itself_be_stopped_and_resumed(tmp_path, cases, tiny_plan):
    runs = [result_of(train(tiny_plan(), cases[:2], tmp_path / name, threads=1)) for name in ("whole", "stopped")]
    result_of(resume(runs[0], cases, more_epochs=2, add=["case02"]))
    events = resume(runs[1], cases, more_epochs=2, add=["case02"])
    next(e for e in events if isinstance(e, Step) and e.step == 8)
    events.close()
    result_of(resume(runs[1], cases))
    assert same(weights_of(runs[0] / "last.safetensors"), weights_of(runs[1] / "last.safetensors"))


def test_older_cases_are_mixed_in_and_remembered(tmp_path, cases, tiny_plan, tiny_case):
    first = result_of(train(tiny_plan(), cases[:2], tmp_path / "a", threads=1))
    plan = tiny_plan(rehearsal_fraction=0.5)
    run = result_of(train(plan, cases[2:], tmp_path / "b", start=first, older=cases[:2], threads=1, older_dataset="a"))
    assert RunFolder.open(run).facts().older_ids == ("case00", "case01")
    with pytest.raises(Seg3dError, match="older cases"):
        result_of(resume(run, cases[2:]))
    result_of(resume(run, cases[2:], older=cases[:2]))
    with pytest.raises(Seg3dError, match="training and older cases"):
        result_of(train(plan, cases, tmp_path / "c", older=cases[:2]))


def test_only_what_was_checked_is_learned_and_scored(tmp_path, cases, tiny_plan):
    """Wrong labels outside the checked box change neither weights nor scores."""

    def spoiled(case, garbage):
        data = case.truth.data.copy()
        data[:, :, 8:] = garbage
        return replace(case, truth=replace(case.truth, data=data), checked=(((0, 21), (0, 26), (0, 8)),))

    results = []
    for garbage in (1, 2):
        sources = [spoiled(case, garbage) for case in cases]
        plan = tiny_plan(crop_to_foreground=False)
        events = list(train(plan, sources[:3], tmp_path / str(garbage), validation=sources[3:], threads=1))
        results.append((weights_of(tmp_path / str(garbage)), [e.dice for e in events if isinstance(e, Validated)]))
    assert same(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_a_start_that_was_killed_leaves_its_folder_free(tmp_path, cases, tiny_plan):
    run = tmp_path / "run"
    run.mkdir()
    (run / "plan.json").write_text("{")  # killed before run.json was written
    (run / ".lock").touch()
    assert result_of(train(tiny_plan(epochs=1), cases, run, threads=1)) == run
    assert RunFolder.open(run).plan.epochs == 1


def test_a_fine_tuning_that_stops_before_its_first_step_still_knows_its_start(tmp_path, cases, tiny_plan):
    first = result_of(train(tiny_plan(), cases[:2], tmp_path / "a", threads=1))
    plan = tiny_plan(seed=5)
    result_of(train(plan, cases[:3], tmp_path / "whole", start=first, threads=1))
    events = train(plan, cases[:3], tmp_path / "stopped", start=first, threads=1)
    next(e for e in events if isinstance(e, Progress))
    events.close()
    result_of(resume(tmp_path / "stopped", cases))
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped"))
    (tmp_path / "stopped" / "checkpoint.safetensors").unlink()
    with pytest.raises(Seg3dError, match="new folder"):
        result_of(resume(tmp_path / "stopped", cases))


def test_a_training_that_cannot_go_back_leaves_the_good_state_alone(tmp_path, cases, tiny_plan):
    run = result_of(train(tiny_plan(), cases[:3], tmp_path / "run", validation=cases[3:], threads=1))
    good = {name: (run / name).read_bytes() for name in ("model.safetensors", "last.safetensors")}
    longer = RunFolder.open(run).plan.changed({"epochs": 4})
    (run / "plan.json").write_text(longer.to_json())
    learner = Learner(longer, torch.device("cpu"))
    learner.load(RunFolder(run))
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter.fill_(float("nan"))
    learner.save(RunFolder(run))
    events = list(resume(run, cases))
    assert isinstance(events[-1], Failed)
    assert "last good model is kept" in events[-1].message
    assert {name: (run / name).read_bytes() for name in good} == good
