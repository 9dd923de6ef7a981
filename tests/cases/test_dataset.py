import json
import subprocess
import sys
import time

import pytest

from napari_seg3d.cases.case import CaseFiles
from napari_seg3d.cases.corrections import save_correction
from napari_seg3d.cases.dataset import fold_cases, open_dataset, read_split, split_cases
from napari_seg3d.errors import DatasetError
from napari_seg3d.volumes.files import read_label_map

from .conftest import image, labels, write_nifti


@pytest.fixture
def dataset(tree):
    return open_dataset(tree(*(f"{c}/{c}_{m}.nii.gz" for c in ("a", "b", "c", "d") for m in ("t1", "seg"))))


def cases_of(*ids: str) -> list[CaseFiles]:
    return [CaseFiles(name, {}, patient=name.split("-")[0]) for name in ids]


def test_a_hundred_cases_open_at_once(tree):
    words = ("flair", "t1", "t1ce", "t2", "seg")
    root = tree(*(f"BraTS20_Training_{i:03d}/BraTS20_Training_{i:03d}_{w}.nii.gz" for i in range(100) for w in words))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        assert len(open_dataset(root).labelled) == 100
        times.append(time.perf_counter() - started)
    assert min(times) < 0.3


def test_opening_needs_no_torch_and_no_qt():
    code = "import sys; import napari_seg3d.cases.dataset, napari_seg3d.cases.check, napari_seg3d.cases.phantoms; "
    code += "print([name for name in ('torch', 'monai', 'qtpy', 'napari', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_cases_are_found_by_id(dataset):
    assert dataset["c"].id == "c"
    assert [case.id for case in dataset] == ["a", "b", "c", "d"]
    with pytest.raises(DatasetError, match=r"no case x .* it has a, b, c, d"):
        dataset["x"]


class TestSplit:
    def test_all_cases_of_a_patient_stay_together(self):
        cases = cases_of(*(f"p{i}-{visit}" for i in range(7) for visit in range(1 + i % 3)))
        for seed in range(20):
            train, validation = split_cases(cases, validation_fraction=0.3, seed=seed)
            assert {case.id for case in train} | {case.id for case in validation} == {case.id for case in cases}
            assert not {case.patient for case in train} & {case.patient for case in validation}
            assert len({case.patient for case in validation}) == 2

    def test_the_seed_decides_and_the_order_does_not(self):
        cases = cases_of(*(f"p{i}" for i in range(30)))
        chosen = [frozenset(case.id for case in split_cases(cases, seed=seed)[1]) for seed in range(5)]
        assert len(set(chosen)) == 5
        assert frozenset(case.id for case in split_cases(cases[::-1], seed=3)[1]) == chosen[3]
        assert len(chosen[0]) == 3

    def test_few_cases(self):
        assert [len(part) for part in split_cases(cases_of("a", "b"), validation_fraction=0.01)] == [1, 1]
        assert [len(part) for part in split_cases(cases_of("a", "b"), validation_fraction=0.99)] == [1, 1]
        assert [len(part) for part in split_cases(cases_of("a"))] == [1, 0]
        assert [len(part) for part in split_cases(cases_of("a", "b"), validation_fraction=0)] == [2, 0]
        assert split_cases([]) == ((), ())

    @pytest.mark.parametrize("fraction", [-0.1, 1, float("nan")])
    def test_impossible_fractions_are_refused(self, fraction):
        with pytest.raises(DatasetError, match="fraction"):
            split_cases(cases_of("a", "b"), validation_fraction=fraction)


class TestFolds:
    def test_every_case_validates_once_and_patients_stay_together(self):
        cases = cases_of(*(f"p{i}-{visit}" for i in range(11) for visit in range(1 + i % 3)))
        for seed in range(10):
            parts = [fold_cases(cases, 5, fold, seed=seed) for fold in range(1, 6)]
            judged = [case.id for _, validation in parts for case in validation]
            assert sorted(judged) == sorted(case.id for case in cases)
            for train, validation in parts:
                assert {case.id for case in (*train, *validation)} == {case.id for case in cases}
                assert not {case.patient for case in train} & {case.patient for case in validation}
            sizes = [len(validation) for _, validation in parts]
            assert max(sizes) - min(sizes) <= 1

    def test_the_seed_decides_and_the_order_does_not(self):
        cases = cases_of(*(f"p{i}" for i in range(23)))
        folds = [frozenset(case.id for case in fold_cases(cases, 5, 2, seed=seed)[1]) for seed in range(4)]
        assert len(set(folds)) == 4
        assert frozenset(case.id for case in fold_cases(cases[::-1], 5, 2, seed=3)[1]) == folds[3]

    @pytest.mark.parametrize(
        ("folds", "fold", "said"),
        [(1, 1, "2 folds up to"), (4, 1, "4 folds for 3 patients"), (3, 0, "from 1 to 3"), (3, 4, "from 1 to 3")],
    )
    def test_impossible_folds_are_refused(self, folds, fold, said):
        with pytest.raises(DatasetError, match=said):
            fold_cases(cases_of("a", "b", "c-1", "c-2"), folds, fold)


class TestSplitFile:
    def write(self, tmp_path, content) -> object:
        path = tmp_path / "split.json"
        path.write_text(json.dumps(content))
        return path

    def test_lists_become_cases(self, dataset, tmp_path):
        path = self.write(tmp_path, {"train": ["c", "a"], "test": ["b"], "rest": ["zzz"], "note": 3})
        split = read_split(path, dataset)
        assert [[case.id for case in part] for part in (split.train, split.test, split.validation)] == [
            ["c", "a"],
            ["b"],
            [],
        ]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"train": ["a", "x", "y"], "validation": ["z"]}, "does not have: x, y, z"),
            ({"train": ["a", "b"], "test": ["b"]}, "more than once: b"),
            ({"train": ["a", "a"]}, "more than once: a"),
            ({"train": "a"}, 'list of case ids under "train"'),
            ({"train": [1]}, 'list of case ids under "train"'),
            ({"test": ["a"]}, "there are none"),
            (["a"], "JSON object"),
        ],
    )
    def test_what_does_not_fit_is_named(self, dataset, tmp_path, content, said):
        with pytest.raises(DatasetError, match=said):
            read_split(self.write(tmp_path, content), dataset)

    def test_a_missing_file_is_named(self, dataset, tmp_path):
        with pytest.raises(DatasetError, match=r"none\.json cannot be read"):
            read_split(tmp_path / "none.json", dataset)

    @pytest.mark.real_data
    def test_the_benchmark(self, shared_data):
        folder = shared_data / "Task04_Hippocampus"
        split = read_split(folder / "benchmark_split.json", open_dataset(folder))
        assert (len(split.train), len(split.test), len(split.validation)) == (40, 20, 0)
        assert not {case.patient for case in split.train} & {case.patient for case in split.test}


def test_corrections_replace_the_truth_and_label_the_unlabelled(tmp_path):
    root = tmp_path / "data"
    for name in ("a", "b"):
        write_nifti(root / name / "t1.nii.gz", image())
    truth = write_nifti(root / "a" / "seg.nii.gz", labels(1, 2))
    corrections = tmp_path / "corrections"
    for name in ("a", "b", "gone"):
        path = save_correction(corrections, name, read_label_map(truth))
    dataset = open_dataset(root, corrections=corrections)
    assert dataset["a"].best_truth == corrections / "a" / "v001.nii.gz"
    assert dataset["a"].truth == truth
    assert [case.id for case in dataset.labelled] == ["a", "b"]
    assert [(p.path, "gone" in p.message) for p in dataset.problems] == [(path, True)]
    assert open_dataset(root, corrections=tmp_path / "none").labelled[0].corrected is None
