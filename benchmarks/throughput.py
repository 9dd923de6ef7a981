"""Training steps per second, beside the bare network, MONAI's data pipeline and nnU-Net's trainer.

Promises, each in interleaved rounds of the same run:

- The whole training loop makes at least 0.95 of the steps per second of the bare forward, backward and optimiser step
  of the same network on a batch that already lies on the device; on the CPU, and on a GPU if there is one.
- It makes at least 5 times those of the same bare step fed by MONAI's CacheDataset and DataLoader with the same
  dictionary transforms; or the network is the limit, which is when it makes 0.95 of the bare rate. The supply of
  batches without any network is told beside it.
- It makes at least 1.3 times those of nnU-Net's own trainer on the same network, patch and batch (CPU).

    python benchmarks/throughput.py DATA [--parts bare monai nnunet] [--nnunet-python /path/to/python] [--cores 2]

DATA is the folder Task04_Hippocampus with its `benchmark_split.json`. nnunetv2 is no dependency of this project; for
the last promise give a Python of an environment of its own:

    python3 -m venv nnunet && nnunet/bin/pip install torch==2.13.0 nnunetv2==2.8.1
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import radians
from pathlib import Path
from statistics import median

from machine import describe, use_cores

OF_BARE, OF_MONAI, OF_NNUNET = 0.95, 5.0, 1.3
#: Makes so many steps and returns the seconds they took.
Runner = Callable[[int], float]
#: Seconds in which a rival's workers fill their queues again before the next one is timed.
SETTLE_S = 0.5
OUR_SUPPLY = "our supply alone"
#: Batches in a round when no network uses them.
BATCHES = 100


def main() -> int:
    """Measure every part; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--parts", nargs="+", choices=("bare", "monai", "nnunet"), default=["bare", "monai", "nnunet"])
    parser.add_argument("--devices", nargs="+", help="default: cpu, and cuda if there is one")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, help="steps in a round; default: those of the plan, with its checkpoint")
    parser.add_argument("--nnunet-python", type=Path, help="a Python with nnunetv2")
    choices = parser.parse_args()
    use_cores(choices.cores)
    print(describe())
    import torch

    torch.set_num_threads(choices.cores)
    devices = choices.devices or ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    kept: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        # What was prepared before must not decide what is measured.
        os.environ["NAPARI_SEG3D_CACHE"] = str(Path(folder) / "cache")
        study = Study(choices.data, Path(folder))
        if {"bare", "monai"} & set(choices.parts):
            for device in devices:
                kept |= measure_loop(study, device, choices)
        if "nnunet" in choices.parts:
            kept |= measure_nnunet(study, choices)
    for what, holds in kept.items():
        print("yes" if holds else "NO ", what)
    return int(not all(kept.values()))


def interleaved(runners: Mapping[str, Runner], steps: int, rounds: int) -> dict[str, list[float]]:
    """Return steps per second of each runner in each round; all run once in a round, the first one changes."""
    names = list(runners)
    for run in runners.values():
        run(3)  # memory, caches, kernels, queues
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            time.sleep(SETTLE_S)
            rates[name].append(steps / runners[name](steps))
    for name in names:
        low, high = min(rates[name]), max(rates[name])
        print(f"  {name:32s} {median(rates[name]):9.3f} /s  ({low:.3f} to {high:.3f})")
    return rates


def ratio(rates: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Return the median over the rounds of how much faster one is: what drifts, drifts for both."""
    return median(a / b for a, b in zip(rates[one], rates[other], strict=True))


# --- ours -------------------------------------------------------------------------------------------------------------


class Study:
    """The training cases of the split, and plans for them."""

    def __init__(self, data: Path, folder: Path) -> None:
        from napari_seg3d import open_dataset, result_of
        from napari_seg3d.cases.dataset import read_split
        from napari_seg3d.cases.fingerprint import fingerprint

        self.data, self.folder = data, folder
        self.cases = read_split(data / "benchmark_split.json", open_dataset(data)).train
        self.facts = result_of(fingerprint(self.cases))
        self._runs = 0

    def plan(self, device: str, steps: int | None = None, **changes: object):
        """Plan a training without end, so that each round ends with a checkpoint."""
        from napari_seg3d.model.planner import make_plan

        plan = make_plan(self.facts, device=device, epochs=100_000)
        return plan.changed({**changes, **({"steps_per_epoch": steps} if steps else {})})

    @contextlib.contextmanager
    def loop(self, plan, device: str, threads: int) -> Iterator[Runner]:
        """The whole training loop, without validation, as whoever iterates over its events has it."""
        from napari_seg3d import train
        from napari_seg3d.events import Failed, Step

        self._runs += 1
        run = self.folder / f"run{self._runs}"
        events = train(plan, self.cases, run, device=device, threads=threads)

        def make(steps: int) -> float:
            synchronise(device)
            begin = time.perf_counter()
            while steps:
                event = next(events)
                steps -= isinstance(event, Step)
                if isinstance(event, Failed):
                    raise RuntimeError(event.message)
            synchronise(device)
            return time.perf_counter() - begin

        try:
            yield make
        finally:
            events.close()

    def pool(self, plan):
        """The prepared cases."""
        from napari_seg3d.training.cache import PreparedCache
        from napari_seg3d.training.patches import Pool

        cache = PreparedCache()
        return Pool([cache.case(case, plan) for case in self.cases])


class BareStep:
    """Forward, loss, backward, optimiser: the network of a plan and nothing else."""

    def __init__(self, plan, device: str) -> None:
        import torch

        from napari_seg3d.training.learner import Learner

        self.device = torch.device(device)
        learner = Learner(plan, self.device)
        self.network, self.loss, self.optimizer = learner.network.train(), learner.loss, learner.optimizer

    def __call__(self, images, target) -> None:
        """Make one step with a batch that lies on the device."""
        from napari_seg3d.model.device import memory_format, mixed_precision

        self.optimizer.zero_grad(set_to_none=True)
        with mixed_precision(self.device):
            outputs = self.network(images.contiguous(memory_format=memory_format(self.device)))
        self.loss(outputs, target).backward()
        self.optimizer.step()

    def on(self, batches: Iterator[tuple]) -> Runner:
        """Return what makes steps with the batches of a source."""

        def make(steps: int) -> float:
            synchronise(self.device.type)
            begin = time.perf_counter()
            for _ in range(steps):
                self(*next(batches))
            synchronise(self.device.type)
            return time.perf_counter() - begin

        return make


def supplying(batches: Iterator[tuple], device: str) -> Runner:
    """Return what takes batches and does nothing with them."""

    def take(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            next(batches)
        synchronise(device)
        return time.perf_counter() - begin

    return take


def synchronise(device: str) -> None:
    """Wait for a GPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


# --- the parts --------------------------------------------------------------------------------------------------------


def measure_loop(study: Study, device: str, choices: argparse.Namespace) -> dict[str, bool]:
    """Measure the loop beside the bare step and, if asked for, beside MONAI's pipeline."""
    import torch

    from napari_seg3d.training.batches import Supply

    plan = study.plan(device, choices.steps)
    steps = plan.steps_per_epoch
    print(f"\n{device}: {in_words(plan)}, {steps} steps a round")
    pool = study.pool(plan)
    supply = Supply(pool, plan, torch.device(device))
    step = BareStep(plan, device)
    lying = supply.batch(0)
    kept = {}
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(study.loop(plan, device, choices.cores))
        runners = {"bare step": step.on(iter(lambda: lying, None)), "our loop": loop}
        supplies = {OUR_SUPPLY: supplying(stack.enter_context(contextlib.closing(supply.batches(0))), device)}
        monai = []
        if "monai" in choices.parts:
            for workers in (0, choices.cores):
                name = f"MONAI, {workers} workers"
                monai.append(name)
                runners[name] = step.on(monai_batches(pool, plan, workers, device))
                supplies[f"{name}: supply alone"] = supplying(monai_batches(pool, plan, workers, device), device)
        rates = interleaved(runners, steps, choices.rounds)
        of_bare = ratio(rates, "our loop", "bare step")
        kept[f"{device}: loop at {of_bare:.3f} of the bare step (promise {OF_BARE})"] = of_bare >= OF_BARE
        if monai:
            best = max(monai, key=lambda name: median(rates[name]))
            times = ratio(rates, "our loop", best)
            promise = f"promise {OF_MONAI:g} ×, or {OF_BARE} of the bare step"
            kept[f"{device}: {times:.2f} × {best} ({promise})"] = times >= OF_MONAI or of_bare >= OF_BARE
            alone = interleaved(supplies, BATCHES, choices.rounds)
            best = max((name for name in alone if name != OUR_SUPPLY), key=lambda name: median(alone[name]))
            print(f"  {ratio(alone, OUR_SUPPLY, best):.2f} × {best}")
    return kept


def in_words(plan) -> str:
    """Name the network and what it is shown."""
    return f"{'-'.join(map(str, plan.network.widths))} maps, {plan.batch_size} patches of {plan.patch_voxels}"


def monai_batches(pool, plan, workers: int, device: str) -> Iterator[tuple]:
    """Yield batches from MONAI's pipeline without end: the same prepared cases, the plan's augmentation.

    In the rival's favour: images come prepared, the indices of foreground voxels are cached, patches lose MONAI's
    metadata, and rotation resamples the patch instead of a larger box around it.
    """
    import numpy as np
    from monai import transforms as m
    from monai.data import CacheDataset, DataLoader

    settings = plan.augmentation
    both, bilinear = ["image", "label"], ("bilinear", "nearest")
    indices = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
    share = plan.foreground_fraction
    turned = 1 - (1 - settings.rotation_probability) * (1 - settings.scale_probability)
    angle = radians(settings.rotation_degrees)
    sigma = (0.05, max(0.05, settings.blur_sigma_voxels))
    gamma = (1 / (1 + settings.gamma_range), 1 + settings.gamma_range)
    coarse = (settings.low_resolution_scale, 1.0)
    possible = [
        (turned, lambda p: m.RandAffined(both, prob=p, rotate_range=[angle] * 3, scale_range=[settings.scale_range] * 3,
                                         mode=bilinear, padding_mode="zeros", cache_grid=True,
                                         spatial_size=plan.patch_voxels)),
        *((0.5 if axis in settings.mirror else 0.0, lambda p, i=i: m.RandFlipd(both, prob=p, spatial_axis=i))
          for i, axis in enumerate(("left-right", "front-back", "up-down"))),
        (settings.noise_probability, lambda p: m.RandGaussianNoised("image", prob=p, std=settings.noise_sigma)),
        (settings.blur_probability, lambda p: m.RandGaussianSmoothd("image", sigma, sigma, sigma, prob=p)),
        (settings.brightness_probability, lambda p: m.RandScaleIntensityd("image", settings.brightness_range, prob=p)),
        (settings.shift_probability, lambda p: m.RandShiftIntensityd("image", settings.shift_range, prob=p)),
        (settings.low_resolution_probability, lambda p: m.RandSimulateLowResolutiond("image", p, zoom_range=coarse)),
        (settings.contrast_probability, lambda p: m.RandScaleIntensityFixedMeand(
            "image", settings.contrast_range, preserve_range=True, prob=p)),
        (settings.gamma_probability, lambda p: m.RandAdjustContrastd("image", prob=p, gamma=gamma, retain_stats=True)),
    ]  # fmt: skip
    transform = m.Compose([
        m.SpatialPadd(both, plan.patch_voxels),
        m.FgBgToIndicesd("label"),
        m.EnsureTyped(both, track_meta=False),
        m.RandCropByPosNegLabeld(both, "label", plan.patch_voxels, pos=share, neg=1 - share, **indices),
        m.DeleteItemsd(list(indices.values())),
        *(make(probability) for probability, make in possible if probability > 0),
    ])  # fmt: skip
    items = [
        {"image": np.asarray(pool[i].image(), np.float32), "label": np.asarray(pool[i].target())[None]}
        for i in range(len(pool))
    ]
    dataset = CacheDataset(items, transform, progress=False)
    loader = DataLoader(
        dataset,
        batch_size=plan.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.startswith("cuda"),
    )
    while True:
        for batch in loader:
            yield tuple(batch[key].to(device, non_blocking=True) for key in both)


def measure_nnunet(study: Study, choices: argparse.Namespace) -> dict[str, bool]:
    """Measure the loop beside nnU-Net's trainer on the network that nnU-Net plans."""
    if choices.nnunet_python is None:
        print("\nnnU-Net left out: it wants a Python of its own with nnunetv2; name it with --nnunet-python.")
        return {}
    command = [str(choices.nnunet_python), str(Path(__file__).with_name("nnunet_steps.py")), str(choices.data)]
    log = study.folder / "nnunet.log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            [*command, "--threads", str(choices.cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        ) as rival,
    ):

        def ask(line: str = "") -> dict:
            if line:
                rival.stdin.write(line + "\n")
                rival.stdin.flush()
            if not (answered := rival.stdout.readline()):
                raise RuntimeError("nnU-Net ended: " + log.read_text(encoding="utf-8")[-2000:])
            return json.loads(answered)

        theirs = ask()
        changes = {
            "network.widths": theirs["widths"],
            "network.kernels": theirs["kernels"],
            "network.strides": theirs["strides"],
            "network.deep_supervision": True,
            "patch_voxels": theirs["patch"],
            "batch_size": theirs["batch"],
            "optimizer": "sgd",
        }
        steps = min(choices.steps or 10, 10)
        plan = study.plan("cpu", steps, **changes)
        ours = sum(p.numel() for p in BareStep(plan, "cpu").network.parameters())
        print(f"\nnnU-Net's network: {in_words(plan)}; {theirs['parameters']:,} parameters, ours {ours:,} (without")
        print("the biases that normalisation subtracts again, and without the coarsest output, which counts nothing)")
        with study.loop(plan, "cpu", choices.cores) as loop:
            runners = {"nnU-Net's trainer": lambda n: float(ask(str(n))["seconds"]), "our loop": loop}
            rates = interleaved(runners, steps, choices.rounds)
        rival.stdin.close()
    times = ratio(rates, "our loop", "nnU-Net's trainer")
    return {f"cpu: {times:.2f} × nnU-Net's trainer (promise {OF_NNUNET} ×)": times >= OF_NNUNET}


if __name__ == "__main__":
    sys.exit(main())
