import pytest

from napari_seg3d.cases.names import modality_of, natural_key, patient_of, read_name


@pytest.mark.parametrize(
    ("stem", "kind", "modality", "rest"),
    [
        ("BraTS20_Training_001_t1ce", "image", "T1c", "BraTS20_Training_001"),
        ("BraTS20_Training_001_T1", "image", "T1", "BraTS20_Training_001"),
        ("BraTS-GLI-00005-100-t2f", "image", "FLAIR", "BraTS-GLI-00005-100"),
        ("BraTS-GLI-00005-100-t2w", "image", "T2", "BraTS-GLI-00005-100"),
        ("BraTS-GLI-00005-100-t1n", "image", "T1", "BraTS-GLI-00005-100"),
        ("Flair_subtrMeanDivStd", "image", "FLAIR", "subtrMeanDivStd"),
        ("VSD.Brain.XX.O.MR_T1c.54514", "image", "T1c", "VSD.Brain.XX.O.MR.54514"),
        ("sub-01_ce-gadolinium_T1w", "image", "T1c", "sub-01"),
        ("patient_T2_FLAIR", "image", "FLAIR", "patient"),
        ("FLAIRreg", "image", "FLAIR", ""),
        ("OTMultiClass", "truth", "", ""),
        ("W39_1998.09.19_Segm", "truth", "", "W39_1998.09.19"),
        ("a_t1_seg", "truth", "", "a_t1"),
        ("t1_brainmask", "mask", "", "t1"),
        ("case_mask", "either", "", "case"),
        ("hippocampus_003", "unknown", "", "hippocampus_003"),
        ("part1_study", "unknown", "", "part1_study"),  # "t1" inside a word is none
        ("Straße_T2", "image", "T2", "Straße"),
    ],
)
def test_a_name_tells_modality_truth_or_mask(stem, kind, modality, rest):
    found = read_name(stem)
    assert (found.kind, found.modality, found.rest) == (kind, modality, rest)


def test_names_that_data_sets_give_their_channels_have_one_meaning():
    assert [modality_of(name) for name in ("t1gd", "T1w", "FLAIR", "T2w", "MRI")] == ["T1c", "T1", "FLAIR", "T2", None]


def test_order_is_that_of_people():
    names = ["case10", "Case9", "case1", "b", "case1a", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "b", "case1", "case1a", "Case9", "case10"]


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("BraTS-GLI-00008-101", "BraTS-GLI-00008"),
        ("BraTS-GLI-00008-100", "BraTS-GLI-00008"),
        ("brats_2013_pat0001_1", "brats_2013_pat0001"),
        ("brats_tcia_pat105_0257", "brats_tcia_pat105"),
        ("sub-01_ses-02", "sub-01"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00000", "BraTS2021_00000"),
        ("hippocampus_003", "hippocampus_003"),
    ],
)
def test_visits_of_one_patient_are_known(case_id, patient):
    assert patient_of(case_id) == patient
