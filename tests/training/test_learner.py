"""Averaging, going back, choosing the best: what a learner keeps beside its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_seg3d.errors import TrainingError
from napari_seg3d.training.learner import MOST_ROLLBACKS, Learner, Made
from napari_seg3d.training.run import RunFolder

CPU = torch.device("cpu")


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 3, (2, 1, 16, 16, 8), generator=generator, dtype=torch.uint8)
    return torch.cat((target, target), 1) + torch.randn((2, 2, 16, 16, 8), generator=generator), target


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_state_comes_back_bit_for_bit(tmp_path, tiny_plan, optimizer):
    plan = tiny_plan(optimizer=optimizer, ema_decay=0.9)
    learner = Learner(plan, CPU)
    for i in range(3):
        learner.learn(batch(i), 0.1)
    learner.scored(0.5)
    learner.save(RunFolder(tmp_path))
    for i in range(3, 6):
        learner.learn(batch(i), 0.1)
    again = Learner(plan, CPU)
    again.load(RunFolder(tmp_path))
    assert (again.step, again.best_dice, again.running_loss) == (3, 0.5, again.running_loss)
    for i in range(3, 6):
        again.learn(batch(i), 0.1)
    assert same(again.network.state_dict(), learner.network.state_dict())
    assert same(again.averaged.state_dict(), learner.averaged.state_dict())
    assert again.running_loss == learner.running_loss


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_a_step_that_is_no_number_leaves_weights_moments_and_counts_alone(tmp_path, tiny_plan, optimizer):
    """The fused optimisers must leave such a step out themselves; torch's others would not."""
    images, target = batch()
    with_bad, without = (Learner(tiny_plan(optimizer=optimizer, ema_decay=0.0), CPU) for _ in range(2))
    for learner in (with_bad, without):
        learner.learn(batch(1), 0.1)
        if learner is with_bad:
            assert learner.learn((images * float("nan"), target), 0.1) == [Made(2, None)]
        learner.learn(batch(2), 0.1)
    assert same(with_bad.network.state_dict(), without.network.state_dict())


def test_the_average_follows_the_formula(tiny_plan):
    learner = Learner(tiny_plan(ema_decay=0.9), CPU)
    mean = weights(learner.network)
    for i in range(12):
        learner.learn(batch(i), 0.1)
        decay = min(0.9, (2 + i) / (11 + i))
        for name, newest in learner.network.state_dict().items():
            mean[name] = decay * mean[name] + (1 - decay) * newest
    assert learner.judged is learner.averaged
    for name, value in learner.model({}).weights.items():
        torch.testing.assert_close(value, mean[name])
    off = Learner(tiny_plan(ema_decay=0.0), CPU)
    assert off.judged is off.network


def test_a_loss_that_leaves_its_course_is_noticed_and_noise_is_not(tiny_plan):
    rng = np.random.default_rng(0)
    learner = Learner(tiny_plan(), CPU)

    def hear(losses):
        for loss in losses:
            learner._heard(iter([(1, [float(loss), 0.0, 0.5, 0.5])]))

    hear(1.5 * np.exp(-np.arange(300) / 100) + rng.uniform(0, 0.4, 300))
    assert not learner.diverged
    assert learner.healthy
    hear([2.0] * 3)
    assert not learner.diverged
    hear(np.linspace(0.5, 6, 60))
    assert learner.diverged
    assert not learner.healthy


def test_going_back_restores_halves_the_rate_and_gives_up_in_the_end(tmp_path, tiny_plan):
    run = RunFolder(tmp_path)
    learner = Learner(tiny_plan(), CPU)
    with pytest.raises(TrainingError, match="Lower the learning rate"):
        learner.go_back(run)
    learner.learn(batch(), 0.0)
    learner.save(run)
    kept, rate = weights(learner.network), learner.learning_rate(0.0)
    for number in range(1, MOST_ROLLBACKS + 1):
        learner.learn(batch(1), 0.0)
        assert "back to step 1" in learner.go_back(run)
        assert learner.step == 1
        assert same(kept, learner.network.state_dict())
        assert learner.learning_rate(0.0) == pytest.approx(rate / 2**number)
    with pytest.raises(TrainingError, match="last good model is kept"):
        learner.go_back(run)


def test_the_best_model_is_chosen_by_a_smoothed_score(tiny_plan):
    learner = Learner(tiny_plan(patience=2), CPU)
    scores = [0.5, 0.7, 0.6, 0.66, 0.5, 0.5]
    #  smoothed 0.5, 0.58, 0.588, 0.617, 0.570, 0.542
    assert [learner.scored(score) for score in scores] == [True, True, True, True, False, False]
    assert learner.best_dice == 0.66
    assert learner.out_of_patience


@pytest.mark.parametrize("network", ["unet", "monai-unet", "unetr"])
def test_the_encoder_learns_slower_or_not_at_all(tiny_plan, network):
    settings = {} if network == "unet" else {"patch_voxels": (16, 16, 16), "network": {
        "name": network, **({"widths": (4, 8), "residual_units": 1} if network == "monai-unet" else
                            {"feature_size": 4, "hidden_size": 24, "mlp_size": 24, "heads": 2})}}  # fmt: skip
    moved = {}
    for rate in (0.0, 0.1, 1.0):
        # Plain gradient descent, so that a tenth of the rate is a tenth of the way.
        plan = tiny_plan(encoder_rate=rate, optimizer="sgd", momentum=0.0, weight_decay=0.0, **settings)
        learner = Learner(plan, CPU)
        before = weights(learner.network)
        size = plan.patch_voxels
        target = torch.randint(0, 3, (1, 1, *size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
        learner.learn((torch.cat((target, target), 1).float(), target), 0.0)
        moved[rate] = {n: (t - before[n]).abs().max().item() for n, t in learner.network.state_dict().items()}
    encoder = [name for name, way in moved[0.0].items() if way == 0 and moved[1.0][name] > 0]
    decoder = [name for name, way in moved[0.0].items() if way > 0]
    assert encoder
    assert decoder
    words = {"unet": ("down", "up"), "monai-unet": ("model.0", "model.2"), "unetr": ("vit", "decoder")}[network]
    assert any(name.startswith(words[0]) for name in encoder)
    assert not any(name.startswith(words[0]) for name in decoder)
    assert any(name.startswith(words[1]) for name in decoder)
    for name in encoder:
        assert moved[0.1][name] == pytest.approx(0.1 * moved[1.0][name], rel=0.05, abs=1e-7)
