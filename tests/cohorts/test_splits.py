"""Splits and datalist files: with empty files of real names, and with small volumes where MONAI reads them."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layouts import LAYOUTS, touch, touch_cases
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from refusals import refused

from common.cohorts import COHORTS, cases, get_cohort, prepare, take
from common.cohorts.datalist import load_datalist, write_datalist
from common.cohorts.registry import owners, patient, patient_of
from common.cohorts.scan import find_cases
from common.cohorts.splits import PARTS, divide, official_splits, require_split, split_cases
from mmb.experiments.joining import as_datalist
from mmb.experiments.lists import require_folds


def make_datalist(cohort, folder, split=None, seed=0, **options):
    return as_datalist(split_cases(cohort, folder, split, seed, **options), cohort, folder, split, seed)


def folder(root: Path, cases: list[str], label: bool = True) -> Path:
    for case in cases:
        (root / case).mkdir(parents=True)
        for token in ("t1", "t1ce", "t2", "flair", "seg")[: 5 if label else 4]:
            (root / case / f"{case}_{token}.nii.gz").touch()
    return root


def names(items: list[dict]) -> list[str]:
    return [item["case"] for item in items]


def test_folds_of_a_cross_validation_test_each_patient_once(tmp_path):
    root = folder(tmp_path, [f"BraTS-GLI-{n:05d}-{time:03d}" for n in range(23) for time in (0, 1)])
    folds = [split_cases(get_cohort("brats2023"), root, f"cv{k}of3", seed=5) for k in (1, 2, 3)]
    assert [len(fold["test"]) for fold in folds] == [16, 16, 14]
    assert [len(fold["validation"]) for fold in folds] == [4, 4, 4]
    everyone = sorted(name for part in PARTS for name in names(folds[0][part]))
    assert sorted(name for fold in folds for name in names(fold["test"])) == everyone
    for fold in folds:
        patients = [{name[:15] for name in names(fold[part])} for part in PARTS]
        assert sum(map(len, patients)) == 23  # no subject is in two parts
    assert names(split_cases(get_cohort("brats2023"), root, "cv1of3", seed=6)["test"]) != names(folds[0]["test"])


def test_published_splits_have_the_papers_counts_and_are_disjoint():
    expected = {
        ("brats2015", "robustseg"): (242, 12, 20),
        **{("brats2018", f"fold{k}"): (199, 29, 57) for k in (1, 2, 3)},
        ("brats2020", "fixed"): (219, 50, 100),
        ("brats2021", "fixed"): (876, 125, 250),
        ("brats2023", "imfuse"): (875, 125, 251),
        ("open_glioma", "fixed"): (25, 5, 9),
        ("open_glioma", "fixed50"): (36, 5, 9),
        **{("open_glioma", f"fold{k}"): (40, 0, 10) for k in range(5)},
        **{("open_glioma", f"inner{k}"): (32, 0, 8) for k in range(2)},
        ("open_glioma", "fixed53"): (39, 5, 9),
        **{("open_glioma", f"member{k}"): (39 - n, 5, n) for k, n in enumerate((7, 7, 9, 8, 8))},
        **{("open_glioma", f"cv53_{k}"): (53 - n, 0, n) for k, n in enumerate((12, 10, 10, 10, 11))},
    }
    found = {}
    for cohort in COHORTS:
        for split, parts in official_splits(cohort).items():
            found[cohort, split] = tuple(len(parts[part]) for part in PARTS)
            assert len({case for part in parts.values() for case in part}) == sum(found[cohort, split])
    assert found == expected
    imfuse = [{patient(case) for case in part} for part in official_splits("brats2023")["imfuse"].values()]
    assert len(set.union(*imfuse)) == sum(map(len, imfuse)) == 1133


def test_folds_of_open_glioma_test_each_case_once_and_share_no_patient(tmp_path):
    splits = official_splits("open_glioma")
    listed = [case for part in splits["fixed"].values() for case in part]
    everyone = [case for part in splits["fixed50"].values() for case in part]
    assert set(listed) < set(everyone)
    assert all(splits["fixed50"][part] == splits["fixed"][part] for part in ("validation", "test"))
    for k in range(2):
        inner = {patient(case) for case in splits[f"inner{k}"]["training"]}
        assert inner.isdisjoint(patient(case) for case in splits[f"inner{k}"]["test"])
        assert {c for p in PARTS for c in splits[f"inner{k}"][p]} == set(splits[f"fold{k}"]["training"])
    for case in [case for part in splits["fixed53"].values() for case in part]:
        tokens = ("t1n", "t1c", "t2w", "t2f") if "SSA" in case else ("t1", "t1ce", "t2", "flair")
        for token in (*tokens, "seg"):
            path = tmp_path / case / f"{case}{'-' if 'SSA' in case else '_'}{token}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    assert [sum("SSA" in case for case in cases) for cases in (listed, everyone)] == [24, 32]
    members = [splits[f"member{k}"] for k in range(5)]
    assert sorted(case for member in members for case in member["test"]) == sorted(splits["fixed53"]["training"])
    assert all(member["validation"] == splits["fixed53"]["validation"] for member in members)
    parts = [splits[f"cv53_{k}"]["test"] for k in range(5)]
    assert sorted(case for part in parts for case in part) == sorted(c for p in PARTS for c in splits["fixed53"][p])
    folds = [prepare("open_glioma", tmp_path, f"fold{k}") for k in range(5)]
    assert sorted(case for fold in folds for case in names(fold["test"])) == sorted(everyone)
    assert [fold["validation"] for fold in folds] == [[]] * 5
    others = {"fixed": 38, "inner0": 40, "inner1": 39, "fixed53": 52, **{f"cv53_{k}": 52 for k in range(5)}}
    for split in splits:
        parts = prepare("open_glioma", tmp_path, split)
        patients = [{patient(case) for case in names(parts[part])} for part in PARTS]
        assert sum(map(len, patients)) == (43 if split.startswith("member") else others.get(split, 49))
        assert all(item["modalities"] == ["t1", "t1c", "t2", "flair"] for part in PARTS for item in parts[part])


def test_brats2015_from_a_folder_where_a_name_is_in_both_grades(tmp_path):
    listed = [case for part in official_splits("brats2015")["robustseg"].values() for case in part]
    assert {case[:4] for case in listed} == {"HGG_", "LGG_"}
    for case in listed:
        (tmp_path / case[:3] / case[4:]).mkdir(parents=True)
        for stem in ("VSD.Brain.XX.O.MR_T1.1", "VSD.Brain_3more.XX.O.OT.2"):
            (tmp_path / case[:3] / case[4:] / f"{stem}.mha").touch()
    parts = split_cases(get_cohort("brats2015"), tmp_path, "robustseg")
    assert [len(parts[part]) for part in PARTS] == [242, 12, 20]
    part_of = {Path(item["label"]).parent: part for part, items in parts.items() for item in items}
    assert part_of[tmp_path / "HGG" / "brats_2013_pat0002_1"] == "test"
    assert part_of[tmp_path / "LGG" / "brats_2013_pat0002_1"] == "training"


def test_brats2018_fold3_from_a_folder_of_another_release(tmp_path):
    fold = official_splits("brats2018")["fold3"]
    folder(tmp_path, [case.replace("Brats18", "BraTS18") for part in fold.values() for case in part])
    parts = prepare("brats2018", str(tmp_path), "fold3")
    assert {part: len(items) for part, items in parts.items()} == {"training": 199, "validation": 29, "test": 57}
    found = [{name.lower() for name in names(items)} for items in parts.values()]
    assert found == [{name.lower() for name in cases} for cases in fold.values()]


def test_brats2020_from_a_folder_with_its_misnamed_label_and_validation_cases(tmp_path, caplog):
    folder(tmp_path, [case for part in official_splits("brats2020")["fixed"].values() for case in part])
    case = tmp_path / "BraTS20_Training_355"
    (case / "BraTS20_Training_355_seg.nii.gz").rename(case / "W39_1998.09.19_Segm.nii")
    folder(tmp_path, ["BraTS20_Validation_001", "BraTS20_Validation_002"], label=False)
    parts = split_cases(get_cohort("brats2020"), tmp_path, "fixed")
    assert [len(parts[part]) for part in PARTS] == [219, 50, 100]
    labels = {item["case"]: item["label"] for items in parts.values() for item in items}
    assert labels["BraTS20_Training_355"] == str(case / "W39_1998.09.19_Segm.nii")
    assert "2 cases are in no part of split fixed: BraTS20_Validation_001, BraTS20_Validation_002" in caplog.text
    (case / "W39_1998.09.19_Segm.nii").unlink()
    with refused(ValueError, "1 of the 369 cases of split fixed are without a label, e.g. BraTS20_Training_355"):
        split_cases(get_cohort("brats2020"), tmp_path, "fixed")


@pytest.mark.parametrize(
    ("cohort", "cases", "unlabelled", "split", "fact"),
    [
        ("brats2020", [f"x{n}" for n in range(9)], [], "cv1of9", "split cv1of9 of 9 patients"),
        ("brats2020", ["x1", "x2", "x3"], [], "cv1of2", "split cv1of2 of 3 patients with a label; expected four"),
        ("brats2020", [f"BraTS20_Training_00{n}" for n in (1, 2)], [], "fixed", "367 of the 369 cases of split fixed"),
        ("brats2018", ["Brats18_x"], [], "fold4", "'fold4' of brats2018; expected one of fold1, fold2, fold3, full, s"),
        ("brats2023", [f"BraTS-GLI-0000{n}" for n in ("1-0", "1-1", "2-0")], [], None, "patients with a label: 2"),
        ("brats2021", [], ["x"], None, "none of its 1 cases has a label; training needs labelled cases"),
        ("brats2021", [], ["x"], "all_test", "none of its 1 cases has a label; evaluation needs"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(tmp_path, cohort, cases, unlabelled, split, fact):
    folder(tmp_path, cases)
    folder(tmp_path, unlabelled, label=False)
    with refused(ValueError, fact):
        make_datalist(get_cohort(cohort), tmp_path, split)


def test_seeded_split_is_a_partition_that_only_the_seed_changes(tmp_path):
    cohort = get_cohort("brats2021")
    every = [f"BraTS2021_{n:05d}" for n in range(20)]
    folder(tmp_path, every)
    parts = split_cases(cohort, tmp_path, seed=0)
    assert [len(parts[part]) for part in PARTS] == [14, 2, 4]
    assert sorted(name for items in parts.values() for name in names(items)) == every
    # pinned: a published result has to stay the same result
    assert names(parts["validation"]) == ["BraTS2021_00006", "BraTS2021_00015"]
    assert split_cases(cohort, tmp_path, "seeded", seed=0) == parts
    assert split_cases(cohort, tmp_path, seed=1) != parts


def test_seeded_split_keeps_a_patient_in_one_part(tmp_path):
    folder(tmp_path, [f"BraTS-GLI-{patient:05d}-{scan:03d}" for patient in range(12) for scan in range(3)])
    parts = split_cases(get_cohort("brats2023"), tmp_path)
    patients = [{name[:-4] for name in names(items)} for items in parts.values()]
    assert ([len(part) for part in patients], len(set.union(*patients))) == ([9, 1, 2], 12)


@pytest.mark.parametrize(("split", "sizes"), [(None, [1, 1, 1]), ("full", [3, 0, 1]), ("all_test", [0, 0, 3])])
def test_unlabelled_cases_are_tested_on_where_all_others_train_and_else_left_out(tmp_path, caplog, split, sizes):
    folder(tmp_path, ["a", "b", "c"])
    folder(tmp_path, ["x"], label=False)
    parts = prepare("brats2021", tmp_path, split)
    assert [len(parts[part]) for part in PARTS] == sizes
    if split == "full":
        assert names(take(parts, "test")) == ["x"]
    else:
        assert f"1 cases are in no part of split {split or 'seeded'}: x" in caplog.text


def write_msd(root: Path, count: int) -> None:
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir()
    for n in range(count):
        image = np.stack([np.full((3, 4, 5), 10 * channel + n, np.float32) for channel in range(4)], axis=-1)
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / "imagesTr" / f"BRATS_00{n}.nii.gz")
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), root / "labelsTr" / f"BRATS_00{n}.nii.gz")


def test_file_says_what_it_is_and_monai_loads_it(tmp_path):
    data = tmp_path / "Task01_BrainTumour"
    data.mkdir()
    write_msd(data, 3)
    path = tmp_path / "lists" / "msd.json"
    write_datalist(make_datalist(get_cohort("msd_task01"), data, seed=5), path)

    stored = json.loads(path.read_text())
    said = {"name": "msd_task01, split seeded", "cohort": "msd_task01", "split": "seeded", "seed": 5, "numTraining": 1}
    said |= {"modalities": ["t1", "t1c", "t2", "flair"], "labels": {"ED": 1, "NCR": 2, "ET": 3}}
    assert {key: value for key, value in stored.items() if key not in PARTS} == said
    assert not any(os.path.isabs(p) for part in PARTS for item in stored[part] for p in [*item["image"], item["label"]])
    assert os.listdir(path.parent) == ["msd.json"]

    ours = load_datalist(path, data)
    for part in PARTS:
        (item,), (theirs,) = ours[part], load_decathlon_datalist(path, data_list_key=part, base_dir=data)
        assert (theirs["image"], theirs["label"]) == (item["image"], item["label"])
        assert item["channels"] == theirs["channels"] == [1, 2, 3, 0]
        volume = LoadImage(image_only=True)(theirs["image"][0])
        assert volume.shape == (3, 4, 5, 4)
        assert volume[..., theirs["channels"][1]].unique().item() == 20 + int(item["case"][-1])


def test_loading_returns_what_was_split(tmp_path):
    # folders and modalities of the same name as an item's text: MONAI's reader would turn "case" into a path
    folder(tmp_path, ["a", "b", "c"])
    (tmp_path / "t1").mkdir()
    path = tmp_path / "datalist.json"
    write_datalist(make_datalist(get_cohort("brats2021"), tmp_path, "full"), path)
    parts = split_cases(get_cohort("brats2021"), tmp_path, "full")
    expected = {part: [{**item, "patient": item["case"].lower()} for item in items] for part, items in parts.items()}
    assert load_datalist(path, tmp_path) == expected
    assert prepare("brats2021", tmp_path, datalist=path) == load_datalist(path, tmp_path)


@pytest.mark.parametrize("key", ["testing", "_hidden", "description"])
def test_other_words_of_a_datalist(listed, key):
    """MONAI's word for ``test``, keys of one's own, and what Decathlon's say besides."""
    datalist, path, data = listed
    cases = datalist.pop("test") if key == "testing" else [{"case": "b"}] if key == "_hidden" else "BraTS"
    write_datalist({**datalist, key: cases, "labels": {"0": "background"}}, path)
    assert len(load_datalist(path, data, "brats2021")["training"]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"validaton": [{"case": "b"}]}, "part 'validaton' is not read; expected training, validation, test"),
        ({"testing": [], "test": []}, "part 'testing' is not read"),
        ({"labels": {"NCR": 1, "ED": 2, "ET": 3}}, "labels {'NCR': 1, 'ED': 2, 'ET': 3}, but brats2021 has"),
    ],
)
def test_what_nobody_reads_in_a_datalist_is_refused(listed, change, said):
    datalist, path, data = listed
    write_datalist({**datalist, **change}, path)
    with refused(ValueError, "list.json", said):
        load_datalist(path, data, "brats2021")


NO_CASES = ("/tmp/a", "../a", "..", "", ".hidden", "a/b", "a\\b", "a\nb", "a\0", "a" * 201)


@pytest.fixture
def listed(tmp_path) -> tuple[dict, Path, Path]:
    """A datalist of one training case, the path to write it to, and the data."""
    data = folder(tmp_path / "data", ["a"])
    return make_datalist(get_cohort("brats2021"), data, "full"), tmp_path / "list.json", data


def test_what_does_not_fit_the_data_is_refused(listed):
    datalist, path, data = listed
    with refused(FileNotFoundError, "list.json: no such datalist"):
        load_datalist(path, data)
    write_datalist(datalist, path)
    with refused(ValueError, "a datalist of cohort brats2021, but brats2023 was requested"):
        prepare("brats2023", data, datalist=path)
    for file in ("a_t2.nii.gz", "a_seg.nii.gz"):
        (data / "a" / file).rename(data / "elsewhere")
        with refused(FileNotFoundError, "list.json: case a lists", file, ", but there is no such file"):
            load_datalist(path, data)
        (data / "elsewhere").rename(data / "a" / file)
    for part in ("training", "test"):
        write_datalist({**datalist, part: [*datalist[part], datalist["training"][0]]}, path)
        with refused(ValueError, "list.json: case a is listed more than once"):
            load_datalist(path, data)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"modalities": ["t1", "t2"]}, ("4 images for modalities", "['t1', 't2']", "one for each")),
        ({"modalities": ["t1", "t1c", "t2", "pd"]}, (".modalities.3: Unknown modality 'pd'",)),
        ({"modalities": ["t1", "t1c", "t1ce", "t2"]}, ("twice", "['t1', 't1c', 't1c', 't2']")),
        ({"image": [], "modalities": []}, ("0 images", "at least one")),
        *[({"case": case}, (".case: ", "expected a valid folder name")) for case in NO_CASES],
        ({"case": 7}, (".case: ", "valid string")),
        ({"image": "a_t1.nii.gz"}, (".image: ",)),
        ({"label": None}, (".label: ", "string")),
        ({"channels": [0, 1]}, ("4 images", "likewise channels")),
        ({"channels": [True] * 4}, (".channels.0: ", "integer")),
        ({"fold": 0}, ("key 'fold' is not read", "Folds of Auto3DSeg are splits here")),
        ({"lable": "a_seg.nii.gz"}, ("key 'lable' is not read; expected case, image, ",)),
    ],
)
def test_items_that_do_not_fit_are_refused(listed, change, facts):
    datalist, path, data = listed
    datalist["training"][0].update(change)
    write_datalist(datalist, path)
    with refused(ValueError, "list.json: training.0", *facts, "mmb datalist"):
        load_datalist(path, data)


def test_modality_aliases_in_a_datalist_resolve(listed):
    datalist, path, data = listed
    datalist["training"][0]["modalities"] = ["T1", "t1ce", "T2w", "FLAIR"]
    write_datalist(datalist, path)
    assert load_datalist(path, data)["training"][0]["modalities"] == ["t1", "t1c", "t2", "flair"]


@pytest.mark.parametrize("text", ["no json", "null", *map('{{"training": {}}}'.format, ("3", "null", '"a"', "[null]"))])
def test_files_that_are_no_datalist_are_refused(tmp_path, text):
    path = tmp_path / "list.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"list.json: .*mmb datalist"):
        load_datalist(path, tmp_path)


@pytest.fixture
def phantom(tmp_path) -> Path:
    """A folder that looks to the scan like one from `phantom.generate`, so that none has to be generated."""
    data = folder(tmp_path / "phantom", ["a", "b", "c"])
    write_datalist(make_datalist(get_cohort("phantom"), data), data / "datalist.json")
    return data


def test_too_few_cases_for_a_batch_are_refused(phantom):
    parts = prepare("phantom", phantom)
    assert take(parts, ["training", "test"], at_least=2) == [*parts["training"], *parts["test"]]
    assert take(parts, None) == []
    with refused(ValueError, "1 cases in training; expected at least 2"):
        take(parts, "training", at_least=2)


def test_phantom_comes_with_its_own_datalist(phantom, tmp_path):
    parts = prepare("phantom", phantom)
    assert parts == load_datalist(phantom / "datalist.json", phantom)
    assert [len(parts[part]) for part in PARTS] == [1, 1, 1]
    with refused(ValueError, "split 'fold3' has no effect: the phantom has its own split"):
        prepare("phantom", phantom, "fold3")
    assert cases("phantom", phantom) == parts["test"]
    assert names(cases("phantom", phantom / "a")) == ["a"]
    with refused(ValueError, "split 5: expected the name of a split, as text"):
        prepare("brats2021", tmp_path, 5)


def test_splits_that_every_cohort_has_and_numbers_of_folds_that_make_no_cross_validation():
    for split in ("cv1of2", "cv2of2", "cv3of3", "full", "seeded", "all_test", None):
        require_split("brats2023", split)
    for split in ("cv0of3", "cv4of3", "cv1of1", "cv1of0"):
        with refused(ValueError, split, "expected cv1of3"):
            require_split("brats2023", split)


def test_folds_are_all_of_one_cross_validation():
    require_folds("brats2023", ["cv3of3", "cv1of3", "cv2of3"])
    require_folds("open_glioma", [f"fold{k}" for k in range(5)])
    for cohort, folds in (
        ("brats2023", ["cv1of2"]),
        ("brats2023", ["cv1of2", "cv2of3"]),
        ("open_glioma", [f"fold{k}" for k in range(4)]),
        ("open_glioma", ["fold0", "fold0", "fold1", "fold2", "fold3"]),
        ("phantom", ["cv1of2", "cv2of2"]),
    ):
        with refused(ValueError, "not all folds of one cross-validation"):
            require_folds(cohort, folds)


OTHERS = ("phantom", "myops2020", "iseg2017", "glioma")
GLIOMA = [name for name in COHORTS if "_cavity_" not in name and name not in OTHERS]


@pytest.mark.parametrize("data", LAYOUTS)
def test_the_names_of_a_data_set_are_refused_by_every_cohort_that_would_read_it_otherwise(tmp_path, data):
    """More than 300 wrong pairings of data set and cohort; one of the same cases and values is accepted."""
    touch_cases(tmp_path, data)
    accepted = []
    for cohort in GLIOMA:
        try:
            prepare(cohort, tmp_path)
            accepted.append(cohort)
        except (ValueError, FileNotFoundError):
            pass
    assert data in accepted
    case = find_cases(tmp_path, get_cohort(data))[0]["case"]
    assert set(accepted) <= {cohort.name for cohort in owners(case)}


def test_a_cohort_for_any_data_accepts_names_if_their_labels_have_the_same_values(tmp_path):
    touch_cases(tmp_path, "brats2024_gli")
    assert prepare("glioma", tmp_path)["test"]
    with refused(ValueError, "BraTS-PED-00001-000 is named like a case of brats_ped or brats2023_ped", "glioma was"):
        prepare("glioma", touch_cases(tmp_path / "children", "brats_ped"))


def test_published_names_are_those_of_their_cohort():
    for name, cohort in COHORTS.items():
        for split in official_splits(name).values():
            assert all(cohort in owners(case) for part in split.values() for case in part)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_patient_is_in_two_parts(tmp_path, name):
    cohort = get_cohort(name)
    items = find_cases(touch_cases(tmp_path, name), cohort)
    for split in (None, "cv1of5", "cv2of5", "cv3of5", "cv4of5", "cv5of5"):
        parts = divide(items, cohort, name, split)
        patients = [{patient_of(item) for item in parts[part]} for part in PARTS]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 6
        assert all(parts[part] for part in PARTS)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda first: {"patient": patient_of(first)}, "patient BraTS2021_00001 is in two parts"),
        (lambda first: {"image": first["image"]}, "t1.nii.gz is in two parts"),
    ],
)
def test_a_datalist_with_a_patient_or_an_image_in_two_parts_is_refused(tmp_path, change, fact):
    items = find_cases(touch_cases(tmp_path, "brats2021"), get_cohort("brats2021"))
    first, second = items[0], items[1] | change(items[0])
    (tmp_path / "apart.json").write_text(json.dumps({"training": [first], "test": [second]}))
    with refused(ValueError, fact, "BraTS2021_00001 in training", "BraTS2021_00002 in test"):
        prepare("brats2021", tmp_path, datalist=tmp_path / "apart.json")
    (tmp_path / "together.json").write_text(json.dumps({"training": [first, second]}))
    assert len(prepare("brats2021", tmp_path, datalist=tmp_path / "together.json")["training"]) == 2


def test_a_patient_that_only_names_show_in_two_parts_is_warned_about(tmp_path, caplog):
    items = find_cases(touch_cases(tmp_path, "brats2023", patients=1), get_cohort("brats2023"))
    (tmp_path / "apart.json").write_text(json.dumps(dict(zip(("training", "test"), ([i] for i in items), strict=True))))
    prepare("brats2023", tmp_path, datalist=tmp_path / "apart.json")
    (record,) = caplog.records
    assert "patient BraTS-GLI-00001 is in two parts" in record.message


def test_names_of_a_datalist_and_of_a_folder_are_checked(tmp_path):
    items = find_cases(touch_cases(tmp_path, "brats2023"), get_cohort("brats2023"))
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    for call in (
        lambda: prepare("brats2021", tmp_path, datalist=tmp_path / "list.json"),
        lambda: split_cases(get_cohort("brats2021"), tmp_path, "full"),
    ):
        with refused(ValueError, "BraTS-GLI-00001-000 is named like a case of brats2023", "but brats2021 was"):
            call()


def test_a_list_of_patients_says_whose_cases_these_are(tmp_path):
    touch(tmp_path, *(f"P{n}_{time}/{t}.nii.gz" for n in range(3) for time in "ab" for t in ("t1", "seg")))
    table = tmp_path / "patients.csv"
    table.write_text("patient,case\n" + "".join(f"P{n},P{n}_{time}\n" for n in range(3) for time in "ab"))
    parts = split_cases(get_cohort("brats2021"), tmp_path, patients=table)
    assert [{patient_of(item) for item in parts[part]} for part in PARTS] == [{"P0"}, {"P2"}, {"P1"}]
    for text, fact in (
        ("patient,case\nP9,P9_a\n", "1 of its 1 cases are not in"),
        ("patient,case\nP1,\n", "with a name in every row"),
        ("who,case\nP1,P1_a\n", "columns who, case; expected case and patient"),
        ("patient,case\nP1,P1_a\nP2,P1_a\n", "two rows for P1_a; expected one for each case"),
    ):
        table.write_text(text)
        with refused(ValueError, "patients.csv", fact):
            split_cases(get_cohort("brats2021"), tmp_path, patients=table)
