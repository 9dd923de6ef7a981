"""A generator against a discriminator: it learns, the discriminator rests when it is too good, all of it resumes."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from torch import nn

from napari_seg3d.errors import Seg3dError
from napari_seg3d.events import EpochDone, Finished, Step, Validated, Warned, details_in_words, result_of
from napari_seg3d.model.checkpoint import load_model, read_tensors
from napari_seg3d.model.prepare import IGNORED
from napari_seg3d.training.adversarial import AdversarialLearner
from napari_seg3d.training.learner import MOST_ROLLBACKS, Learner, Made
from napari_seg3d.training.loop import resume, train
from napari_seg3d.training.run import RunFolder, read_history

CPU = torch.device("cpu")
SIZE = (32, 32, 16)


@pytest.fixture(scope="module")
def cases(tiny_case):
    return [tiny_case(i, shape=(37, 34, 19)) for i in range(4)]


@pytest.fixture
def gan_plan(tiny_plan):
    """A small Vox2Vox: `gan_plan(**changes)`."""

    def make(**changes):
        network = {"name": "vox2vox", "base": 4}
        return tiny_plan(
            **{
                "network": network, "patch_voxels": SIZE, "adversarial.base": 4, "optimizer": "adam",
                "loss": "generalised-dice", "learning_rate": 2e-3, "schedule": "constant", "weight_decay": 0.0,
                "batch_size": 2, "ema_decay": 0.0, "warmup_steps": 0, "steps_per_epoch": 3, **changes,
            }
        )  # fmt: skip

    return make


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.zeros((2, 1, *SIZE), dtype=torch.uint8)
    target[:, :, 8:22, 6:25, 4:12] = 1
    target[:, :, 12:18, 10:20, 6:10] = 2
    return torch.cat((target, target), 1) + 0.1 * torch.randn((2, 2, *SIZE), generator=generator), target


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def state(learner):
    return {name: tensor.clone() for name, tensor in learner._tensors().items()}


def test_it_learns_and_reports_the_seven_values(tmp_path, cases, gan_plan):
    run = tmp_path / "run"
    plan = gan_plan(epochs=4, steps_per_epoch=12, **{"network.base": 8})
    events = list(train(plan, cases[:3], run, validation=cases[3:], threads=1))
    assert isinstance(events[-1], Finished)
    steps = [e for e in events if isinstance(e, Step)]
    for step in steps:
        told = step.details
        assert list(told) == ["D loss", "D accuracy", "D updated", "G loss", "voxel loss", "adversarial loss"]
        assert step.seconds_left is not None
        assert step.loss == told["G loss"]
        assert told["G loss"] == pytest.approx(told["adversarial loss"] + 5 * told["voxel loss"], rel=1e-5)
        assert told["D updated"] == (told["D accuracy"] <= 0.8)
    assert {step.details["D updated"] for step in steps} <= {0.0, 1.0}
    rounds = [e for e in events if isinstance(e, EpochDone)]
    assert rounds[1].details["D loss"] == pytest.approx(sum(s.details["D loss"] for s in steps[12:24]) / 12)
    assert rounds[-1].dice["oedema"] > rounds[0].dice["oedema"]
    checks = [e for e in events if isinstance(e, Validated)]
    # All background would give 0, all oedema some 0.3.
    assert checks[-1].dice["oedema"] > 0.6
    assert checks[-1].loss < checks[0].loss
    rows = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert float(rows[-1]["D accuracy"]) == rounds[-1].details["D accuracy"]
    assert float(rows[-1]["validation_loss"]) == checks[-1].loss
    assert float(rows[-1]["train dice oedema"]) == rounds[-1].dice["oedema"]
    assert [e.details for e in read_history(run) if isinstance(e, EpochDone)] == [e.details for e in rounds]
    assert "D accuracy" in details_in_words(steps[-1].details)
    # Only the generator is the model.
    assert load_model(run).weights.keys() == Learner(plan, CPU).network.state_dict().keys()


@pytest.mark.parametrize(("threshold", "updates"), [(0.0, 0), (1.0, 4)])
def test_the_discriminator_rests_while_it_is_right_too_often(gan_plan, threshold, updates):
    learner = AdversarialLearner(gan_plan(**{"adversarial.threshold": threshold}), CPU)
    before = {name: tensor.clone() for name, tensor in learner.discriminator.state_dict().items()}
    heard = [made for i in range(4) for made in learner.learn(batch(i), 0.0)]
    # At the start some of its answers are right.
    assert all(made.details["D accuracy"] > 0 for made in heard)
    assert learner.updates == sum(made.details["D updated"] for made in heard) == updates
    assert same(before, learner.discriminator.state_dict()) == (updates == 0)


def test_the_losses_are_those_of_least_squares(gan_plan):
    """Held against the formulas, written out slowly."""
    plain = {"name": "vox2vox", "base": 4, "dropout": 0.0}
    plan = gan_plan(**{"adversarial.threshold": 0.0, "adversarial.weight": 3.0}, network=plain)
    learner = AdversarialLearner(plan, CPU)
    images, target = batch()
    learner.network.train()
    with torch.no_grad():
        logits = learner.network(images)
        truth = nn.functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float()
        real, fake = (learner.discriminator(torch.cat((images, m), 1)) for m in (truth, logits.softmax(1)))
        voxel = learner.loss(logits, target)
    (made,) = learner.learn((images, target), 0.0)
    told = made.details
    assert told["D loss"] == pytest.approx(0.5 * (((real - 1) ** 2).mean() + (fake**2).mean()).item(), rel=1e-5)
    right = ((real >= 0.5).float().mean() + (fake < 0.5).float().mean()) / 2
    assert told["D accuracy"] == pytest.approx(right.item())
    assert told["adversarial loss"] == pytest.approx(((fake - 1) ** 2).mean().item(), rel=1e-5)
    assert made.loss == pytest.approx(((fake - 1) ** 2).mean().item() + 3 * voxel.item(), rel=1e-5)


def test_the_generator_runs_once_a_step_and_is_pushed_by_the_judgement(gan_plan):
    learner = AdversarialLearner(gan_plan(**{"adversarial.weight": 1e-6}), CPU)
    runs = []
    learner.network.register_forward_hook(lambda *_: runs.append(1))
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    learner.learn(batch(), 0.0)
    assert len(runs) == 1
    assert not same(before, learner.network.state_dict())


def test_voxels_that_are_not_known_are_hidden_from_the_discriminator(gan_plan):
    seen = []

    def judge(plan):
        network = nn.Conv3d(len(plan.modalities) + plan.outputs, 1, 3)
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
        return network

    learner = AdversarialLearner(gan_plan(), CPU, judge=judge)
    images, target = batch()
    target[:, :, :16] = IGNORED
    learner.learn((images, target), 0.0)
    assert len(seen) == 3  # truth, mask for its own loss, mask for the generator's
    for pair in seen:
        assert torch.equal(pair[:, :2], images)
        assert not pair[:, 2:, :16].any()
        torch.testing.assert_close(pair[:, 2:, 16:].sum(1), torch.ones(2, 16, 32, 16))


def test_regions_are_judged_as_sigmoids(gan_plan):
    regions = [
        {"name": "whole", "values": (1, 2), "color": "#00ff00"},
        {"name": "core", "values": (2,), "color": "#ff0000"},
    ]
    plan = gan_plan(targets="regions", regions=regions)
    learner = AdversarialLearner(plan, CPU)
    heard = [made for i in range(3) for made in learner.learn(batch(i), 0.0)]
    assert all(math.isfinite(made.loss) for made in heard)
    assert learner.round_means().dice.keys() == {"whole", "core"}


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stop_and_resume_is_bit_exact(tmp_path, cases, gan_plan, stop_at):
    plan = gan_plan(ema_decay=0.9)
    result_of(train(plan, cases[:3], tmp_path / "whole", validation=cases[3:], threads=1))
    events = train(plan, cases[:3], tmp_path / "run", validation=cases[3:], threads=1)
    next(e for e in events if isinstance(e, Step) and e.step == stop_at)
    events.close()
    again = list(resume(tmp_path / "run", cases))
    assert [e.step for e in again if isinstance(e, Step)] == list(range(stop_at + 1, 7))
    whole, stopped = (
        read_tensors(tmp_path / name / "checkpoint.safetensors", "checkpoint") for name in ("whole", "run")
    )
    assert {name.split(".")[0] for name in whole[0]} == {
        "network", "averaged", "optimizer", "discriminator", "judging"
    }  # fmt: skip
    assert same(whole[0], stopped[0])
    assert whole[1]["updates"] == stopped[1]["updates"]
    assert whole[1]["accuracy"] == stopped[1]["accuracy"] >= 0
    told = [[(e.loss, e.dice, e.details) for e in read_history(tmp_path / name) if isinstance(e, EpochDone)]
            for name in ("whole", "run")]  # fmt: skip
    assert told[0] == told[1]


def test_a_step_that_is_no_number_changes_neither_network(gan_plan):
    learner = AdversarialLearner(gan_plan(**{"adversarial.threshold": 1.0}), CPU)
    learner.learn(batch(), 0.0)
    before = state(learner)
    images, target = batch(1)
    assert learner.learn((images * float("nan"), target), 0.0) == [Made(2, None)]
    after = state(learner)
    assert same(before, after)
    assert learner.updates == 1
    assert learner.learn(batch(2), 0.0)[0].loss is not None


def test_batch_statistics_survive_a_step_that_is_no_number(gan_plan):
    def judge(plan):
        return nn.Sequential(
            nn.Conv3d(len(plan.modalities) + plan.outputs, 2, 3), nn.BatchNorm3d(2), nn.Conv3d(2, 1, 1)
        )

    learner = AdversarialLearner(gan_plan(), CPU, judge=judge)
    learner.learn(batch(), 0.0)
    before = learner.discriminator[1].running_mean.clone()
    images, target = batch(1)
    learner.learn((images * float("nan"), target), 0.0)
    assert torch.equal(before, learner.discriminator[1].running_mean)


def test_going_back_restores_both_networks(tmp_path, gan_plan):
    run = RunFolder(tmp_path)
    learner = AdversarialLearner(gan_plan(**{"adversarial.threshold": 1.0}), CPU)
    learner.learn(batch(), 0.0)
    learner.save(run)
    kept = state(learner)
    for _ in range(MOST_ROLLBACKS):
        learner.learn(batch(1), 0.0)
        assert "back to step 1" in learner.go_back(run)
        assert same(kept, state(learner))
    learner._set_rate(0.0)
    assert learner.judging.param_groups[0]["lr"] == pytest.approx(2e-4 / 2**MOST_ROLLBACKS)


def test_a_harder_judgement_is_no_divergence(gan_plan):
    learner = AdversarialLearner(gan_plan(), CPU)
    for i in range(200):
        adversarial, voxel = 0.2 + i / 50, 0.5 - i / 500
        learner._heard(iter([(i, [adversarial + voxel, 0, 0.5, 0.5, 0.1, 0.9, 0, 0, voxel, adversarial])]))
    assert not learner.diverged
    assert learner.healthy


def test_a_full_memory_is_gone_on_from(tmp_path, cases, gan_plan):
    calls = []

    def hungry(*_):
        calls.append(1)
        if len(calls) == 8:  # three calls a step
            raise MemoryError

    def judge(plan):
        network = nn.Conv3d(len(plan.modalities) + plan.outputs, 1, 4, stride=4)
        network.register_forward_pre_hook(hungry)
        return network

    events = list(train(gan_plan(), cases[:3], tmp_path / "run", threads=1, discriminator=judge))
    assert [e.message for e in events if isinstance(e, Warned)][1].startswith("The memory is full")
    assert [e.step for e in events if isinstance(e, Step)] == [1, 2, 3, 4, 5, 6]
    assert RunFolder.open(tmp_path / "run").plan.batch_size == 1


def test_any_discriminator_can_be_passed(tmp_path, cases, gan_plan, tiny_plan):
    def judge(plan):
        channels = len(plan.modalities) + plan.outputs
        return nn.Sequential(nn.Conv3d(channels, 4, 4, stride=4), nn.LeakyReLU(0.2), nn.Conv3d(4, 1, 1))

    plan = gan_plan(epochs=1)
    run = tmp_path / "run"
    events = train(plan, cases[:3], run, threads=1, discriminator=judge)
    next(e for e in events if isinstance(e, Step))
    events.close()
    with pytest.raises(Seg3dError, match="another discriminator"):
        result_of(resume(run, cases))
    result_of(resume(run, cases, discriminator=judge))
    with pytest.raises(Seg3dError, match="the plan trains without one"):
        result_of(train(tiny_plan(), cases[:3], tmp_path / "other", discriminator=judge))


def test_several_processes_are_refused_in_words(tmp_path, cases, gan_plan, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Seg3dError, match="one process"):
        result_of(train(gan_plan(), cases, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
