import json
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_seg3d.cases import labels as schemes
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.errors import DatasetError

from .conftest import image, labels, write_nifti


def problems_of(dataset, part: str = "") -> list[str]:
    return [f"{p.path.name}: {p.message}" for p in dataset.problems if part in f"{p.path.name}: {p.message}"]


def decathlon_json(root: Path, **changes) -> Path:
    facts = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [
            {"image": f"./imagesTr/BRATS_{i}.nii.gz", "label": f"./labelsTr/BRATS_{i}.nii.gz"} for i in (10, 2)
        ],
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({k: v for k, v in (facts | changes).items() if v is not None}))
    return root


BRATS_FILES = [f"{part}/BRATS_{i}.nii.gz" for i in (2, 10) for part in ("imagesTr", "labelsTr")]


class TestDecathlon:
    def test_channels_names_and_tests(self, tree):
        root = decathlon_json(tree(*BRATS_FILES, "imagesTs/BRATS_485.nii.gz"))
        dataset = open_dataset(root)
        assert dataset.layout == "Decathlon"
        assert [case.id for case in dataset] == ["BRATS_2", "BRATS_10", "BRATS_485"]
        assert dataset.modalities == ("FLAIR", "T1w", "t1gd", "T2w")
        assert [file.channel for file in dataset["BRATS_2"].modalities.values()] == [0, 1, 2, 3]
        assert {file.path for file in dataset["BRATS_2"].modalities.values()} == {root / "imagesTr/BRATS_2.nii.gz"}
        assert [label.name for label in dataset.table] == ["edema", "non-enhancing tumor", "enhancing tumour"]
        assert [region.values for region in dataset.regions] == [(1, 2, 3), (2, 3), (3,)]
        assert dataset["BRATS_485"].truth is None
        assert [case.id for case in dataset.labelled] == ["BRATS_2", "BRATS_10"]
        assert dataset.problems == ()

    def test_a_four_dimensional_file_is_read_channel_by_channel(self, tmp_path):
        root = decathlon_json(
            tmp_path, training=[{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}], test=None
        )
        channels = np.stack([image(i) for i in range(4)], -1)
        write_nifti(root / "imagesTr/a.nii.gz", channels)
        write_nifti(root / "labelsTr/a.nii.gz", labels(1, 3))
        case = open_dataset(root)["a"].load()
        assert list(case.modalities) == ["FLAIR", "T1w", "t1gd", "T2w"]
        for i, volume in enumerate(case.modalities.values()):
            np.testing.assert_array_equal(volume.data, channels[..., i])
        assert case.truth.table[3].name == "enhancing tumour"

    def test_missing_unlisted_and_doubled_files_are_told(self, tree):
        root = decathlon_json(
            tree(
                "imagesTr/BRATS_2.nii.gz",
                "imagesTr/extra.nii.gz",
                "imagesTr/._BRATS_2.nii.gz",
                "labelsTr/BRATS_10.nii.gz",
            ),
            training=[
                {"image": "imagesTr/BRATS_2.nii.gz", "label": "labelsTr/BRATS_2.nii.gz"},
                {"image": "imagesTr/BRATS_10.nii.gz", "label": "labelsTr/BRATS_10.nii.gz"},
                {"image": "imagesTr/BRATS_2.nii.gz"},
                {"image": "imagesTr/._BRATS_2.nii.gz", "label": "labelsTr/._BRATS_2.nii.gz"},
                {"label": 3},
            ],
            test=None,
        )
        dataset = open_dataset(root)
        assert [(case.id, case.truth) for case in dataset] == [("BRATS_2", None)]
        assert len(problems_of(dataset)) == 5
        assert problems_of(dataset, "BRATS_10.nii.gz: dataset.json lists this image")
        assert problems_of(dataset, "BRATS_2.nii.gz: dataset.json lists this label")
        assert problems_of(dataset, "twice")
        assert problems_of(dataset, "extra.nii.gz: This file is in no list")
        assert not problems_of(dataset, "._")

    def test_nnunet_raw(self, tree):
        root = decathlon_json(
            tree(
                "imagesTr/c_002_0000.nii.gz",
                "imagesTr/c_002_0001.nii.gz",
                "labelsTr/c_002.nii.gz",
                "imagesTs/d_0000.nii.gz",
            ),
            modality=None,
            channel_names={"0": "T1", "1": "T2"},
            labels={"background": 0, "whole": [1, 2], "inner": [2]},
            training=None,
            test=None,
            file_ending=".nii.gz",
        )
        dataset = open_dataset(root)
        assert dataset.layout == "nnU-Net raw"
        assert dataset.modalities == ("T1", "T2")
        assert [(r.name, r.values) for r in dataset.regions] == [("whole", (1, 2)), ("inner", (2,))]
        assert [case.id for case in dataset.labelled] == ["c_002"]
        assert problems_of(dataset, "d has no T2")

    def test_ten_channels_keep_their_order(self, tree):
        root = decathlon_json(tree("imagesTr/a.nii.gz"), modality={str(i): f"m{i}" for i in range(12)},
                              training=[{"image": "imagesTr/a.nii.gz"}], test=None)  # fmt: skip
        assert open_dataset(root).modalities == tuple(f"m{i}" for i in range(12))

    def test_a_number_beside_regions_is_a_region(self, tree):
        root = decathlon_json(tree(*BRATS_FILES), labels={"background": 0, "whole": [1, 2], "core": 2, "ignore": 3})
        dataset = open_dataset(root)
        assert {r.name: r.values for r in dataset.regions} == {"whole": (1, 2), "core": (2,), "ignore": (3,)}
        assert problems_of(dataset, "label 3 (ignore) is read as an ordinary label")

    @pytest.mark.parametrize(
        ("text", "said"),
        [("{", "not valid JSON"), ("[]", "JSON object"), ("{}", '"modality"'), ("[" * 100_000, "not valid JSON")],
    )
    def test_a_damaged_json_is_refused_in_words(self, tree, text, said):
        root = tree("imagesTr/a.nii.gz")
        (root / "dataset.json").write_text(text)
        with pytest.raises(DatasetError, match=said):
            open_dataset(root)

    def test_labels_without_numbers_are_refused(self, tree):
        root = decathlon_json(tree("imagesTr/a.nii.gz"), labels={"one": "edema"})
        with pytest.raises(DatasetError, match='label "one"'):
            open_dataset(root)

    @pytest.mark.real_data
    def test_hippocampus(self, shared_data):
        dataset = open_dataset(shared_data / "Task04_Hippocampus")
        assert (len(dataset), len(dataset.labelled), dataset.modalities) == (100, 100, ("MRI",))
        assert [label.name for label in dataset.table] == ["Anterior", "Posterior"]
        assert dataset.problems == ()
        ids = [case.id for case in dataset]
        assert ids == sorted(ids)


class TestImagesAndLabels:
    def test_pairs_by_name_and_reports_the_rest(self, tree):
        images = [f"images/hippocampus_{i}.nii.gz" for i in (3, 20, 118)]
        root = tree(
            *images, *(f"labels/hippocampus_{i}.nii.gz" for i in (3, 10, 20, 281)), "labels/._hippocampus_3.nii.gz"
        )
        write_nifti(root / images[0], image())
        dataset = open_dataset(root)
        assert [(case.id, case.truth and case.truth.name) for case in dataset] == [
            ("hippocampus_3", "hippocampus_3.nii.gz"),
            ("hippocampus_20", "hippocampus_20.nii.gz"),
            ("hippocampus_118", None),
        ]
        assert dataset.modalities == ("image",)
        assert len(problems_of(dataset)) == 3
        assert problems_of(dataset, "case hippocampus_118 has no label file")
        assert len(problems_of(dataset, "belongs to no image")) == 2

    def test_several_modalities_by_number(self, tree):
        root = tree(
            *(f"imagesTr/{c}_{i:04d}.nii" for c in ("a", "b") for i in (0, 1)), "labelsTr/a.nii", "labelsTr/b.nii"
        )
        dataset = open_dataset(root)
        assert [case.id for case in dataset.labelled] == ["a", "b"]
        assert dataset.modalities == ("channel 0", "channel 1")

    def test_several_modalities_by_word(self, tree):
        root = tree(*(f"Images/{c}-{m}.nii.gz" for c in ("p1", "p2") for m in ("t1c", "T2w")), "Labels/p1.nii.gz")
        dataset = open_dataset(root)
        assert dataset.modalities == ("T1c", "T2")
        assert [case.id for case in dataset.labelled] == ["p1"]
        assert problems_of(dataset, "p2 has no label file")

    def test_numbered_cases_are_no_channels(self, tree):
        root = tree("images/scan_0001.nii.gz", "images/scan_0002.nii.gz", "labels/scan_0001.nii.gz")
        write_nifti(root / "images/scan_0001.nii.gz", image())
        assert [case.id for case in open_dataset(root)] == ["scan_0001", "scan_0002"]

    def test_label_files_may_say_that_they_are(self, tree):
        root = tree("images/a.nii.gz", "images/b.nii.gz", "labels/a_seg.nii.gz", "labels/b-label.nii.gz")
        write_nifti(root / "images/a.nii.gz", image())
        assert len(open_dataset(root).labelled) == 2

    def test_channels_of_unnamed_files_come_from_the_first_header(self, tree):
        root = tree("images/b.nii.gz")
        write_nifti(root / "images/a.nii.gz", np.zeros((4, 3, 2, 3), np.float32))
        dataset = open_dataset(root)
        assert dataset.modalities == ("channel 0", "channel 1", "channel 2")
        assert [file.channel for file in dataset["b"].modalities.values()] == [0, 1, 2]

    def test_training_and_test_trees_side_by_side(self, tree):
        root = tree(
            *(f"{part}/{kind}/{n}.nii" for part in ("train", "test") for kind in ("images", "labels") for n in (1, 2))
        )
        for part in ("train", "test"):
            write_nifti(root / part / "images/1.nii", image())
        assert [case.id for case in open_dataset(root)] == ["test_1", "test_2", "train_1", "train_2"]

    def test_a_damaged_first_file_does_not_hide_the_others(self, tree):
        root = tree("images/a.nii.gz", "labels/a.nii.gz")
        write_nifti(root / "images/b.nii.gz", np.zeros((4, 3, 2, 2), np.float32))
        assert open_dataset(root).modalities == ("channel 0", "channel 1")
        (root / "images/b.nii.gz").unlink()
        assert open_dataset(root).modalities == ("image",)

    def test_files_of_one_name_are_told(self, tree):
        root = tree(
            "images/a.nii",
            "images/a.nii.gz",
            "images/b.mha",
            "imagesTs/a.nii",
            "labels/a.nii",
            "masks/a.nii",
            "gt/a.nii",
        )
        dataset = open_dataset(root)
        assert [(case.id, case.truth, case.mask) for case in dataset] == [
            ("a", root / "labels/a.nii", root / "masks/a.nii")
        ]
        assert len(problems_of(dataset)) == 4
        assert problems_of(dataset, "a.nii.gz: This file is left out: a.nii has the same name")
        assert problems_of(dataset, "two cases a")
        assert problems_of(dataset, "gt: A second folder")
        assert problems_of(dataset, "1 .mha")

    def test_a_file_above_is_read_only_if_it_is_a_table(self, tree):
        root = tree("deep/a/t1.nii")
        (root / "deep" / "labels.json").write_text('{"labels": {"1": "vessel"}}')
        assert open_dataset(root / "deep" / "a").table[1].name == "vessel"
        for text in ("[]", "{", '{"labels": 3}', '{"labels": {"one": "vessel"}}'):
            (root / "deep" / "labels.json").write_text(text)
            assert len(open_dataset(root / "deep" / "a").table) == 0

    def test_names_beside_the_folders(self, tree):
        root = tree("images/a.nii", "labels/a.nii")
        write_nifti(root / "images/a.nii", image())
        (root / "labels.json").write_text('{"labels": {"0": "background", "1": "vessel"}}')
        assert open_dataset(root).table[1].name == "vessel"
        (root / "labels.json").write_text('{"1": "vessel"}')
        with pytest.raises(DatasetError, match='object "labels"'):
            open_dataset(root)

    def test_one_folder_of_it_brings_names_and_truth_along(self, tree):
        root = decathlon_json(tree(*BRATS_FILES, "imagesTs/BRATS_485.nii.gz"))
        assert [case.id for case in open_dataset(root / "imagesTs")] == ["BRATS_485"]
        assert open_dataset(root / "imagesTs").modalities == ("FLAIR", "T1w", "t1gd", "T2w")
        one = open_dataset(root / "imagesTr" / "BRATS_10.nii.gz")
        assert [case.truth for case in one] == [root / "labelsTr" / "BRATS_10.nii.gz"]


class TestCaseFolders:
    @pytest.mark.real_data
    def test_brats_2013_as_it_lies(self, shared_data):
        dataset = open_dataset(shared_data / "BraTS2013")
        assert [case.id for case in dataset] == [f"brats_2013_pat000{i}_1" for i in (1, 4, 6)]
        assert dataset.modalities == ("FLAIR", "T1c")
        assert dataset.table == schemes.BRATS_2012_2016.table
        assert [region.values for region in dataset.regions] == [(1, 2, 3, 4), (1, 3, 4), (4,)]
        assert dataset.problems == ()
        case = dataset.cases[1].load()
        assert case.geometry.orientation == "LPS"
        assert set(np.unique(case.truth.data)) <= {0, 1, 2, 3, 4}
        assert 1_000_000 < np.count_nonzero(case.mask) < 2_000_000

    @pytest.mark.parametrize(
        ("case_id", "mark", "words", "scheme"),
        [
            ("Brats18_2013_10_1", "_", ("flair", "t1", "t1ce", "t2", "seg"), schemes.BRATS_2017_2022),
            ("BraTS20_Training_001", "_", ("flair", "t1", "t1ce", "t2", "seg"), schemes.BRATS_2017_2022),
            ("BraTS2021_00000", "_", ("flair", "t1", "t1ce", "t2", "seg"), schemes.BRATS_2017_2022),
            ("BraTS-GLI-00000-000", "-", ("t2f", "t1n", "t1c", "t2w", "seg"), schemes.BRATS_2023),
            ("BraTS-GLI-02063-100", "-", ("t2f", "t1n", "t1c", "t2w", "seg"), schemes.BRATS_2024),
        ],
    )
    def test_editions_of_brats(self, tree, case_id, mark, words, scheme):
        root = tree(*(f"HGG/{case_id}/{case_id}{mark}{word}.nii.gz" for word in words), "name_mapping.csv")
        dataset = open_dataset(root)
        assert dataset.modalities == ("FLAIR", "T1", "T1c", "T2")
        assert [file.path.name.split(mark)[-1].split(".")[0] for file in dataset.cases[0].modalities.values()] == list(
            words[:4]
        )
        assert dataset.cases[0].truth is not None
        assert dataset.table == scheme.table
        assert dataset.problems == ()

    def test_editions_that_changed_their_numbers_are_not_guessed(self, tree):
        dataset = open_dataset(tree("BraTS-PED-00001-000/a-t1c.nii.gz", "BraTS-PED-00001-000/a-seg.nii.gz"))
        assert len(dataset.table) == 0
        assert dataset.regions is None

    def test_mixed_editions_are_told(self, tree):
        names = ("BraTS20_Training_001", "BraTS-GLI-00000-000")
        dataset = open_dataset(tree(*(f"{name}/{name}_{word}.nii.gz" for name in names for word in ("t1", "seg"))))
        assert problems_of(dataset, "different schemes")
        assert len(dataset.table) == 0

    def test_the_odd_mask_of_case_355(self, tree):
        case = "BraTS20_Training_355"
        root = tree(
            *(f"{case}/{case}_{word}.nii" for word in ("flair", "t1", "t1ce", "t2")), f"{case}/W39_1998.09.19_Segm.nii"
        )
        dataset = open_dataset(root)
        assert dataset[case].truth.name == "W39_1998.09.19_Segm.nii"
        assert len(problems_of(dataset)) == 1
        assert problems_of(dataset, "not named like the images")

    def test_a_case_without_truth_is_unlabelled_and_no_problem(self, tree):
        dataset = open_dataset(tree("a/a_t1.nii.gz", "a/a_seg.nii.gz", "b/b_t1.nii.gz"))
        assert [case.id for case in dataset.labelled] == ["a"]
        assert dataset.problems == ()

    def test_a_case_without_a_modality_cannot_be_learned_from(self, tree):
        names = [f"{c}/{c}_{m}.nii.gz" for c in "abc" for m in ("flair", "t2", "seg")]
        dataset = open_dataset(tree(*(name for name in names if name != "b/b_t2.nii.gz")))
        assert [case.id for case in dataset.labelled] == ["a", "c"]
        assert [(p.severity, p.message) for p in dataset.problems] == [("error", "The case b has no T2.")]

    def test_a_rare_modality_does_not_spoil_the_others(self, tree):
        dataset = open_dataset(tree(*(f"{c}/{c}_t1.nii.gz" for c in "abc"), "c/c_adc.nii.gz"))
        assert dataset.modalities == ("T1",)
        assert list(dataset["c"].modalities) == ["T1"]
        assert problems_of(dataset, "Only 1 of 3 cases have ADC")

    def test_leftovers_strangers_and_doubles(self, tree):
        root = tree(
            "a/a_t1.nii.gz", "a/._a_t1.nii.gz", "a/.hidden_t2.nii.gz", "a/notes.txt", "a/a_warped.nii.gz",
            "a/a_seg.nii.gz", "a/b_seg.nii.gz", "a/a_flair.mha", "b/b_seg.nii.gz",
        )  # fmt: skip
        dataset = open_dataset(root)
        assert [case.id for case in dataset] == ["a"]
        assert dataset["a"].truth.name == "a_seg.nii.gz"
        assert len(problems_of(dataset)) == 4
        assert problems_of(dataset, "a_warped.nii.gz: ")
        assert problems_of(dataset, "b_seg.nii.gz: This file of the case a")
        assert problems_of(dataset, "No file of the case b")
        assert problems_of(dataset, "1 .mha")

    @pytest.mark.parametrize(("files", "role"), [(("t1", "mask"), "truth"), (("t1", "mask", "seg"), "mask")])
    def test_mask_is_the_truth_unless_there_is_one(self, tree, files, role):
        case = open_dataset(tree(*(f"x/{name}.nii.gz" for name in files))).cases[0]
        assert getattr(case, role).name == "mask.nii.gz"

    def test_one_unnamed_image_beside_a_truth(self, tree):
        dataset = open_dataset(tree("a/scan.nii.gz", "a/label.nii.gz", "b/scan.nii.gz", "b/label.nii.gz"))
        assert dataset.modalities == ("image",)
        assert len(dataset.labelled) == 2

    def test_equal_ids_are_told_apart_by_the_folder_above(self, tree):
        dataset = open_dataset(tree("HGG/p1/t1.nii.gz", "LGG/p1/t1.nii.gz", "LGG/p2/t1.nii.gz"))
        assert [case.id for case in dataset] == ["HGG_p1", "LGG_p1", "p2"]

    def test_cases_side_by_side_in_one_folder(self, tree):
        root = tree(*(f"case{i}_{word}.nii.gz" for i in (1, 2, 10) for word in ("t1", "t1ce", "seg")))
        dataset = open_dataset(root)
        assert [case.id for case in dataset.labelled] == ["case1", "case2", "case10"]
        assert dataset.modalities == ("T1", "T1c")

    def test_single_images_and_their_labels_in_one_folder(self, tree):
        dataset = open_dataset(tree("a.nii.gz", "a_seg.nii.gz", "b.nii.gz"))
        assert [(case.id, case.truth is not None) for case in dataset] == [("a", True), ("b", False)]

    def test_a_single_case_folder(self, tree):
        dataset = open_dataset(tree("p7/FLAIR.nii.gz", "p7/T1c.nii.gz", "p7/seg.nii.gz") / "p7")
        assert (dataset.layout, [case.id for case in dataset], dataset.modalities) == (
            "one case folder",
            ["p7"],
            ("FLAIR", "T1c"),
        )

    @pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked this way on Windows")
    def test_a_locked_folder_does_not_hide_the_others(self, tree):
        root = tree("a/t1.nii.gz", "lost+found/t1.nii.gz")
        (root / "lost+found").chmod(0)
        try:
            if (root / "lost+found").stat().st_uid == 0:
                pytest.skip("nothing is locked for the administrator")
            dataset = open_dataset(root)
        finally:
            (root / "lost+found").chmod(0o755)
        assert [case.id for case in dataset] == ["a"]
        assert problems_of(dataset, "cannot be read")


class TestSingleFiles:
    def test_its_name_may_tell_the_modality(self, tmp_path):
        dataset = open_dataset(write_nifti(tmp_path / "x_t1ce.nii.gz", image()))
        assert [(case.id, list(case.modalities), case.truth) for case in dataset] == [("x_t1ce", ["T1c"], None)]

    def test_a_four_dimensional_file_has_channels(self, tmp_path):
        dataset = open_dataset(write_nifti(tmp_path / "x.nii.gz", np.zeros((4, 3, 2, 2), np.int16)))
        assert dataset.modalities == ("channel 0", "channel 1")

    def test_something_else_is_refused(self, tree):
        with pytest.raises(DatasetError, match=r"notes\.txt is no image"):
            open_dataset(tree("notes.txt") / "notes.txt")


class TestNothingThere:
    def test_the_layouts_are_named(self, tree):
        with pytest.raises(DatasetError, match=r"No cases were found.*dataset\.json.*one folder per case"):
            open_dataset(tree("readme.txt"))

    def test_no_folder(self, tmp_path):
        with pytest.raises(DatasetError, match="no folder or file"):
            open_dataset(tmp_path / "nowhere")


class TestPatterns:
    def test_names_in_case_folders(self, tree):
        root = tree(*(f"{c}/{n}.nii.gz" for c in ("s1", "s2") for n in ("scanA_x", "scanB_y", "result", "outline")))
        patterns = {"T1": "scana*", "T2": "*_y.nii.gz", "truth": "result.nii.gz", "mask": "outline*"}
        dataset = open_dataset(root, patterns=patterns)
        assert dataset.modalities == ("T1", "T2")
        assert [case.id for case in dataset.labelled] == ["s1", "s2"]
        assert dataset["s2"].mask == root / "s2/outline.nii.gz"

    def test_paths_with_the_case_in_them(self, tree):
        root = tree(
            *(f"{kind}/{c}{end}.nii.gz" for c in ("p1", "p_2") for kind, end in (("mr", "_a"), ("seg", "_final")))
        )
        dataset = open_dataset(root, patterns={"T1": "mr/{case}_a.nii.gz", "truth": "seg/{case}_*.nii.gz"})
        assert [(case.id, case.truth.name) for case in dataset] == [
            ("p1", "p1_final.nii.gz"),
            ("p_2", "p_2_final.nii.gz"),
        ]

    def test_second_matches_and_cases_without_image_are_told(self, tree):
        root = tree("a/t1.nii", "a/t1_old.nii", "b/seg.nii")
        dataset = open_dataset(root, patterns={"T1": "t1*", "truth": "seg*"})
        assert [case.id for case in dataset] == ["a"]
        assert problems_of(dataset, "t1_old.nii: A second file")
        assert problems_of(dataset, "case b matches no pattern")

    @pytest.mark.parametrize(
        ("patterns", "said"),
        [
            ({"T1": "nothing*"}, "matches the pattern"),
            ({"truth": "seg*"}, "at least one modality"),
            ({"T1": "{case}_t1.nii", "truth": "seg*"}, "in all of them or in none"),
        ],
    )
    def test_wrong_patterns_are_refused(self, tree, patterns, said):
        with pytest.raises(DatasetError, match=said):
            open_dataset(tree("a/t1.nii", "a/seg.nii"), patterns=patterns)
