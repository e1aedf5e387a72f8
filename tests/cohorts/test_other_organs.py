"""iSEG-2017 and MyoPS 2020: their official folders, label values, splits, and the way through load and sweep."""

import nibabel as nib
import numpy as np
import pytest
import torch
from engines.two_stage import TwoStage
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, CenterSpatialCropd, Compose, NormalizeIntensityd

from common.cohorts import cases, get_cohort, prepare, take
from common.cohorts.check import check_folder
from common.cohorts.splits import PARTS, split_cases
from common.engines.inferers import ForegroundInferer
from common.engines.sweep import SubsetSweep
from common.io.images import read_volume
from common.transforms import (
    CachedDataset,
    LabelsToRegionsd,
    LoadSubjectd,
    ToFileGridd,
)
from mmb.experiments.joining import as_datalist

COHORT = get_cohort("iseg2017")
SHAPE = (12, 10, 8)


def volume(seed, label=False):
    rng, brain = np.random.default_rng(seed), np.zeros(SHAPE, bool)
    brain[2:10, 2:8, 2:7] = True
    values = rng.choice([0, 10, 150, 250], SHAPE) if label else rng.integers(1, 999, SHAPE)
    return np.where(brain, values, 0).astype(np.uint8 if label else np.int16)


def write(root, numbers, labelled=True, suffix=".hdr", empty=False):
    """Write subjects as in the challenge's download, or converted to NIfTI."""
    root.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        for seed, token in enumerate(("T1", "T2", "label") if labelled else ("T1", "T2")):
            path = root / f"subject-{number}-{token}{suffix}"
            voxels = volume(10 * number + seed, label=token == "label")[..., None]
            if empty:
                path.with_suffix(".img").touch()
                path.touch()
            elif suffix == ".hdr":
                nib.save(nib.AnalyzeImage(voxels, None, nib.AnalyzeHeader(endianness=">")), path)
            else:
                nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return root


@pytest.fixture
def download(tmp_path):
    write(tmp_path / "iSeg-2017-Training", range(1, 11), empty=True)
    write(tmp_path / "iSeg-2017-Testing", range(11, 24), labelled=False, empty=True)
    return tmp_path


def test_official_folder(download, caplog):
    found = {item["case"]: item for item in cases("iseg2017", download)}
    assert sorted(found) == sorted(f"subject-{number}" for number in range(1, 24))
    training = download / "iSeg-2017-Training"
    *images, label = (str(training / f"subject-1-{token}.img") for token in ("T1", "T2", "label"))
    assert found["subject-1"] == {"case": "subject-1", "image": images, "modalities": ["t1", "t2"], "label": label}
    assert "label" not in found["subject-11"]
    testing = cases("iseg2017", download / "iSeg-2017-Testing")
    assert [item["case"] for item in testing] == [f"subject-{number}" for number in range(11, 24)]
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".hdr", ".nii"])
def test_values_survive_loading(tmp_path, caplog, suffix):
    write(tmp_path / "iSeg-2017-Training", [1, 2], suffix=suffix)
    loaded = LoadSubjectd("iseg2017")(cases("iseg2017", tmp_path)[0])
    assert not caplog.records
    truth = torch.from_numpy(volume(12, label=True))[None]
    np.testing.assert_array_equal(loaded["image"].numpy(), np.stack([volume(10), volume(11)]))
    assert loaded["label"].dtype == torch.uint8
    assert torch.equal(loaded["label"].as_tensor(), truth)
    regions = LabelsToRegionsd("label", "iseg2017")(loaded)["label"]
    assert torch.equal(regions.bool(), torch.stack([truth[0] == value for value in (10, 150, 250)]))


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_either_of_the_two_files_names_the_image(tmp_path, suffix):
    write(tmp_path, [1])
    read = read_volume(tmp_path / f"subject-1-T2{suffix}")
    assert (read.shape, read.dtype) == (SHAPE, torch.float32)
    np.testing.assert_array_equal(read.numpy(), volume(11))
    np.testing.assert_array_equal(np.abs(np.diag(read.affine)), np.ones(4))
    (tmp_path / "subject-1-T2.hdr").unlink()
    with pytest.raises(ValueError, match=r"subject-1-T2\.img: cannot be read as an image .*Analyze file"):
        LoadSubjectd("iseg2017")(cases("iseg2017", tmp_path)[0])


def test_the_check_finds_nothing_wrong(tmp_path):
    write(tmp_path / "iSeg-2017-Training", [1, 2])
    write(tmp_path / "iSeg-2017-Testing", [11], labelled=False)
    table = check_folder(COHORT, tmp_path).set_index("case")
    assert table["problems"].tolist() == [""] * 3
    found = table.loc["subject-1", ["modalities", "shape", "spacing_mm", "label_values"]].tolist()
    assert found == ["t1+t2", "12x10x8", "1x1x1", "0 10 150 250"]
    assert table.loc["subject-11", "label_values"] == ""


def test_mag_ms_split_has_the_papers_numbers(download, caplog):
    parts = prepare("iseg2017", download, "mag_ms")
    assert [len(parts[part]) for part in PARTS] == [6, 1, 3]
    names = [item["case"] for part in PARTS for item in parts[part]]
    assert sorted(names) == sorted(f"subject-{number}" for number in range(1, 11))
    assert split_cases(COHORT, download, "mag_ms", seed=0) == parts
    assert split_cases(COHORT, download, "mag_ms", seed=1) != parts
    made = as_datalist(split_cases(COHORT, download, "mag_ms", seed=5), COHORT, download, "mag_ms", 5)
    assert (made["split"], made["seed"]) == ("mag_ms", 5)
    assert "13 cases are in no part of split mag_ms" in caplog.text
    (download / "iSeg-2017-Training" / "subject-3-label.img").unlink()
    with pytest.raises(ValueError, match=r"9 patients with a label; split mag_ms has 10 \(6 / 1 / 3\)"):
        split_cases(COHORT, download, "mag_ms")


def test_mag_ms_split_of_msd(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        for number in range(1, 485):
            (tmp_path / folder / f"BRATS_{number:03d}.nii.gz").touch()
    parts = split_cases(get_cohort("msd_task01"), tmp_path, "mag_ms")
    assert [len(parts[part]) for part in PARTS] == [388, 72, 24]
    assert len({item["case"] for part in parts.values() for item in part}) == 484


MYOPS = get_cohort("myops2020")
PLANES = (12, 10, 3)
NAMES = {"C0": "bssfp", "DE": "lge", "T2": "t2"}


def write_hearts(root, numbers, affine=None, empty=False):
    """Write subjects as in the challenge's download."""
    rng = np.random.default_rng(0)
    for number in numbers:
        for folder, token in (*(("train25", name) for name in NAMES), ("train25_myops_gd", "gd")):
            path = root / folder / f"myops_training_{number}_{token}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if empty:
                path.touch()
            else:
                values = [0, 200, 500, 600, 1220, 2221] if token == "gd" else np.arange(100, 900)
                voxels = rng.choice(values, PLANES).astype(np.int16)
                nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 10, 1]) if affine is None else affine), path)
    return root


def test_official_folder_of_hearts(tmp_path):
    write_hearts(tmp_path, range(101, 126), empty=True)
    (tmp_path / "test20").mkdir()
    for number in range(201, 221):
        for token in NAMES:
            (tmp_path / "test20" / f"myops_test_{number}_{token}.nii.gz").touch()
    found = cases("myops2020", tmp_path)
    assert len(found) == 45
    files = [str(tmp_path / "train25" / f"myops_training_101_{token}.nii.gz") for token in NAMES]
    label = str(tmp_path / "train25_myops_gd" / "myops_training_101_gd.nii.gz")
    expected = {"case": "myops_training_101", "image": files, "modalities": ["bssfp", "lge", "t2"], "label": label}
    assert (found[20], found[0]["case"]) == (expected, "myops_test_201")
    assert "label" not in found[0]
    parts = prepare("myops2020", tmp_path)
    assert (len(take(parts, ["training", "validation"])), len(parts["test"])) == (20, 5)


def test_values_survive_loading_and_the_way_to_regions(tmp_path, caplog):
    write_hearts(tmp_path, [101, 102])
    item = cases("myops2020", tmp_path)[0]
    loaded = LoadSubjectd("myops2020")(item)
    assert not caplog.records  # neither of cases side by side nor of a background that is not 0
    truth = torch.from_numpy(nib.load(item["label"]).get_fdata())[None]
    assert loaded["image"].shape == (3, *PLANES)
    assert torch.equal(loaded["label"].double(), truth)
    regions = LabelsToRegionsd("label", "myops2020")(loaded)["label"]
    for region, values in enumerate([[500], [600], [200, 1220, 2221]]):
        assert torch.equal(regions[region].bool(), torch.isin(truth[0], torch.tensor(values).double()))
    assert (check_folder(MYOPS, tmp_path)["problems"] == "").all()


def test_swept_plane_by_plane_with_a_network_of_two_dimensions(tmp_path):
    """From the challenge's files to results on regions, with windows of a plane and a softmax over grouped classes."""
    write_hearts(tmp_path, [101, 102])
    crop = CenterSpatialCropd("image", roi_size=(8, 8, -1))
    preprocessing = Compose([LoadSubjectd("myops2020"), crop, NormalizeIntensityd("image", channel_wise=True)])
    network = TwoStage(out_channels=4, dims=2).eval()
    inferer = ForegroundInferer((8, 8), overlap=0.5, softmax=True)
    postprocessing = Compose([Activationsd("pred", softmax=True), ToFileGridd("pred")])
    wanted, conventions = [("bssfp",), ("lge", "t2")], {"empty": "released"}
    sweep = SubsetSweep("myops2020", wanted, network, inferer, postprocessing, conventions)
    loader = DataLoader(CachedDataset(cases("myops2020", tmp_path), preprocessing), batch_size=1)
    evaluator = SupervisedEvaluator("cpu", loader, network, iteration_update=sweep)
    evaluator.run()
    results = evaluator.state.output.results
    assert list(results["region"].unique()) == ["LVB", "RVB", "MYO"]
    assert set(results["modalities"]) == {"bssfp", "lge+t2"}
    assert results.loc[results["metric"] != "divergence", "value"].notna().all()  # it compares with all three
    prediction = evaluator.state.output.planes["threshold/lge+t2"]
    assert prediction.shape == PLANES[:2]
    assert set(np.unique(prediction)) <= {0, 200, 500, 600}
    assert prediction.any()
