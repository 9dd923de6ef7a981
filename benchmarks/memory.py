"""Peak memory of a training, with few and with many cases of the size of a real brain tumour study.

Promise: a training on 500 cases of 240 × 240 × 155 voxels in four modalities takes as much memory of the computer as
one on 50, within 10 %. Each training runs in a process of its own, which tells the largest resident size of itself and
its children. It prepares all cases and makes so many steps that most of them are seen.

    python benchmarks/memory.py [--cases 50 500] [--shape 240 240 155] [--steps 300] [--folder DIR]

The cases are made up: five skull-stripped heads with a tumour, repeated. One file of each case differs in its header,
so that none is taken for another; the other files are links. Disk: about 4 MB a case, and 30 MB for the prepared one.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe, use_cores

WITHIN = 0.10
MODALITIES = ("FLAIR", "T1", "T1c", "T2")
HEADS = 5
#: On disk, for one case of the full size.
CASE_GB = 0.034
HEADER_BYTES = 352
DESCRIPTION_AT, DESCRIPTION_LENGTH = 148, 80


def main() -> int:
    """Make the cases, train on few and on many; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", type=int, default=[50, 500])
    parser.add_argument("--shape", nargs=3, type=int, default=[240, 240, 155])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--patch", nargs=3, type=int, default=[32, 32, 32])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the cases are written; default: a new temporary folder")
    parser.add_argument("--part", choices=("make", "train"), help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.part == "make":
        make_cases(choices.folder, max(choices.cases), tuple(choices.shape))
        return 0
    if choices.part == "train":
        print(json.dumps(train_here(choices)))
        return 0
    use_cores(choices.cores)
    print(describe())
    with tempfile.TemporaryDirectory(prefix="memory-", dir=choices.folder) as folder:
        return compare(choices, Path(folder))


def compare(choices: argparse.Namespace, folder: Path) -> int:
    """Measure each number of cases in a process of its own."""
    voxels = choices.shape[0] * choices.shape[1] * choices.shape[2]
    wanted_gb = CASE_GB * max(choices.cases) * voxels / (240 * 240 * 155)
    if shutil.disk_usage(folder).free < 1.1e9 * wanted_gb:
        print(f"{max(choices.cases)} cases take {wanted_gb:.0f} GB, and {folder} has less. Choose another --folder.")
        return 1
    # A process starts with the memory peak of the one that starts it, so this one stays small.
    begin = time.monotonic()
    part(choices, folder, "make", max(choices.cases))
    print(f"made {max(choices.cases)} cases in {time.monotonic() - begin:.0f} s")
    peaks = {}
    for count in choices.cases:
        told = json.loads(part(choices, folder, "train", count))
        peaks[count] = told["peak_mb"]
        print(f"{count:4d} cases: peak {told['peak_mb']:.0f} MB; {told['first_step_mb']:.0f} MB after the first step, "
              f"{told['last_step_mb']:.0f} MB after step {told['steps']}; {told['prepared_gb']:.2f} GB prepared in "
              f"{told['prepared_s']:.0f} s, steps in {told['steps_s']:.0f} s")  # fmt: skip
    differ = max(peaks.values()) / min(peaks.values()) - 1
    kept = differ <= WITHIN
    print(f"{'yes' if kept else 'NO '} the peaks differ by {differ:.1%} (promise {WITHIN:.0%})")
    return int(not kept)


def part(choices: argparse.Namespace, folder: Path, name: str, count: int) -> str:
    """Run a part of this script in a process of its own and return what it printed."""
    numbers = {"cases": [count], "shape": choices.shape, "patch": choices.patch, "steps": [choices.steps]}
    numbers["cores"] = [choices.cores]
    options = [text for option, values in numbers.items() for text in (f"--{option}", *map(str, values))]
    command = [sys.executable, __file__, "--part", name, "--folder", str(folder), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


# --- in a process of their own ----------------------------------------------------------------------------------------


def train_here(choices: argparse.Namespace) -> dict[str, float]:
    """Train on the first so many cases and return this process's figures."""
    import resource

    (count,) = choices.cases
    cache = choices.folder / f"cache{count}"
    os.environ["NAPARI_SEG3D_CACHE"] = str(cache)
    from napari_seg3d import make_plan, open_dataset, result_of, train
    from napari_seg3d.cases.fingerprint import fingerprint
    from napari_seg3d.events import Failed, Step

    cases = open_dataset(choices.folder / "study").labelled[:count]
    if len(cases) != count:
        raise RuntimeError(f"Expected {count} cases, found {len(cases)}.")
    stages = {"network.kernels": ((3, 3, 3),) * 2, "network.strides": ((1, 1, 1), (2, 2, 2))}
    changes = {"network.widths": (4, 8), "patch_voxels": choices.patch, "batch_size": 2, **stages}
    # The plan is made from two cases: what grows with their number would be the reading of all of them.
    facts = result_of(fingerprint(cases[:2]))
    plan = make_plan(facts, epochs=1, device="cpu", changes={**changes, "steps_per_epoch": choices.steps})
    begin, first, last = time.monotonic(), None, None
    for event in train(plan, cases, choices.folder / f"run{count}", device="cpu", threads=choices.cores):
        if isinstance(event, Failed):
            raise RuntimeError(event.message)
        if isinstance(event, Step):
            last = (time.monotonic(), event)
            first = first or last
    kilobytes = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    prepared = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    shutil.rmtree(cache)
    return {
        "peak_mb": kilobytes / 1024,
        "first_step_mb": first[1].memory_mb,
        "last_step_mb": last[1].memory_mb,
        "prepared_s": first[0] - begin,
        "prepared_gb": prepared / 1e9,
        "steps": last[1].step,
        "steps_s": last[0] - first[0],
    }


def make_cases(folder: Path, count: int, shape: tuple[int, int, int]) -> None:
    """Write case folders: the images of a few heads over and over, each case with a header of its own."""
    heads = folder / "heads"
    heads.mkdir()
    for number in range(min(HEADS, count)):
        write_head(heads, number, shape)
    for number in range(count):
        name, head = f"case_{number:03d}", number % HEADS
        (folder / "study" / name).mkdir(parents=True)
        for kind in (*MODALITIES[1:], "seg"):
            os.link(heads / f"{head}_{kind}.nii.gz", folder / "study" / name / f"{name}_{kind}.nii.gz")
        # A gzip file may consist of several: the header is packed anew, the voxels are copied as they are.
        header = bytearray((heads / f"{head}_FLAIR.header").read_bytes())
        header[DESCRIPTION_AT : DESCRIPTION_AT + DESCRIPTION_LENGTH] = name.encode().ljust(DESCRIPTION_LENGTH, b"\0")
        with (folder / "study" / name / f"{name}_FLAIR.nii.gz").open("wb") as file:
            file.write(gzip.compress(header))
            file.write((heads / f"{head}_FLAIR.voxels.gz").read_bytes())


def write_head(folder: Path, number: int, shape: tuple[int, int, int]) -> None:
    """Write the images of one skull-stripped head in a black border, and the truth of its tumour."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(number)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    head = (x / 0.58) ** 2 + (y / 0.72) ** 2 + (z / 0.85) ** 2 < 1
    middle = rng.uniform(-0.25, 0.25, 3)
    radius = np.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2 + (z - middle[2]) ** 2)
    truth = np.zeros(shape, np.uint8)
    for value, reach in ((1, 0.28), (3, 0.18), (2, 0.12)):
        truth[head & (radius < reach)] = value
    affine = np.diag((-1.0, -1.0, 1.0, 1.0))
    nib.save(nib.Nifti1Image(truth, affine), folder / f"{number}_seg.nii.gz")
    for kind in MODALITIES:
        waves = rng.uniform(2, 9, 3)
        tissue = 300 + 60 * np.sin(waves[0] * x) * np.cos(waves[1] * y) + 40 * np.sin(waves[2] * z)
        tissue += np.array((0.0, *rng.uniform(40, 160, 3)), np.float32)[truth] + 12 * rng.standard_normal(
            shape, np.float32
        )
        image = nib.Nifti1Image(np.where(head, tissue, 0).astype(np.int16), affine)
        # Coarse steps, so that the files stay small.
        image = nib.Nifti1Image(np.asarray(image.dataobj) // 8 * 8, affine)
        nib.save(image, folder / f"{number}_{kind}.nii.gz")
    raw = gzip.decompress((folder / f"{number}_FLAIR.nii.gz").read_bytes())
    (folder / f"{number}_FLAIR.header").write_bytes(raw[:HEADER_BYTES])
    (folder / f"{number}_FLAIR.voxels.gz").write_bytes(gzip.compress(raw[HEADER_BYTES:], 6))


if __name__ == "__main__":
    sys.exit(main())
