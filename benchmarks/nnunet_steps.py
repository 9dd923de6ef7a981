"""The rival of `throughput.py`: nnU-Net's own trainer, in a Python of its own where nnunetv2 is installed.

It converts the `train` cases of the split to nnU-Net's layout, plans and preprocesses them as nnU-Net does, and then
makes as many training steps as each line of its input says: the body of nnU-Net's own loop, fed by its own workers. For
each line it prints a JSON object with the seconds; the first one tells the plan.

    python benchmarks/nnunet_steps.py DATA --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

NUMBER, NAME = 504, "Dataset504_Steps"


def main() -> int:
    """Answer each line of the input with a round of steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a Decathlon task with benchmark_split.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    choices = parser.parse_args()
    # nnU-Net prints much; what the benchmark reads must stay apart from it.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with tempfile.TemporaryDirectory(prefix="nnunet-") as folder:
        os.environ.update({f"nnUNet_{part}": str(Path(folder) / part) for part in ("raw", "preprocessed", "results")})
        # Its default is as many workers as there are cores, up to 12; it compiles on a GPU only.
        os.environ.update({"nnUNet_n_proc_DA": str(min(12, choices.threads))})
        write_raw(choices.data, Path(folder) / "raw" / NAME)
        answer(choices, answers)
    return 0


def write_raw(data: Path, raw: Path) -> None:
    """Lay the training cases out as nnU-Net wants them."""
    described = json.loads((data / "dataset.json").read_text("utf-8"))
    ids = json.loads((data / "benchmark_split.json").read_text("utf-8"))["train"]
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in ids:
        shutil.copyfile(data / "imagesTr" / f"{case}.nii.gz", raw / "imagesTr" / f"{case}_0000.nii.gz")
        shutil.copyfile(data / "labelsTr" / f"{case}.nii.gz", raw / "labelsTr" / f"{case}.nii.gz")
    facts = {
        "channel_names": {"0": "MRI"},
        "labels": {name: int(value) for value, name in described["labels"].items()},
        "numTraining": len(ids),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(facts), encoding="utf-8")


def answer(choices: argparse.Namespace, answers: TextIO) -> None:
    """Plan, preprocess, then make the steps that are asked for."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
    from nnunetv2.run.run_training import get_trainer_from_args

    extract_fingerprints([NUMBER], num_processes=choices.threads)
    plan_experiments([NUMBER])
    preprocess([NUMBER], configurations=("3d_fullres",), num_processes=(choices.threads,))

    torch.set_num_threads(choices.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device(choices.device)
    trainer = get_trainer_from_args(NAME, "3d_fullres", "all", device=device)
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    network = trainer.configuration_manager.network_arch_init_kwargs
    facts = {
        "patch": [int(n) for n in trainer.configuration_manager.patch_size],
        "batch": int(trainer.batch_size),
        "widths": [int(n) for n in network["features_per_stage"]],
        "kernels": network["kernel_sizes"],
        "strides": network["strides"],
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }
    print(json.dumps(facts), file=answers)
    for line in sys.stdin:
        begin = time.perf_counter()
        for _ in range(int(line)):
            trainer.train_step(next(trainer.dataloader_train))
        print(json.dumps({"seconds": time.perf_counter() - begin}), file=answers)
    trainer.dataloader_train._finish()
    trainer.dataloader_val._finish()


if __name__ == "__main__":
    sys.exit(main())
