"""The cardiac cohort: its official folder, label values above 255, and targets that group classes."""

import nibabel as nib
import numpy as np
import torch
from engines.two_stage import TwoStage
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, CenterSpatialCropd, Compose, NormalizeIntensityd

from common.cohorts import cases, get_cohort, prepare, take
from common.cohorts.check import check_folder
from common.engines import ForegroundInferer, SubsetSweep
from common.transforms import (
    CachedDataset,
    DecideLabelsd,
    LabelsToClassesd,
    LabelsToRegionsd,
    LoadSubjectd,
    ToFileGridd,
)

COHORT = get_cohort("myops2020")
SHAPE = (12, 10, 3)
NAMES = {"C0": "bssfp", "DE": "lge", "T2": "t2"}


def write(root, numbers, affine=None, empty=False):
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
                voxels = rng.choice(values, SHAPE).astype(np.int16)
                nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 10, 1]) if affine is None else affine), path)
    return root


def test_official_folder(tmp_path):
    write(tmp_path, range(101, 126), empty=True)
    (tmp_path / "test20").mkdir()
    for number in range(201, 221):
        for token in NAMES:
            (tmp_path / "test20" / f"myops_test_{number}_{token}.nii.gz").touch()
    found = cases("myops2020", tmp_path)
    assert len(found) == 45
    assert found[20] == {
        "case": "myops_training_101",
        "image": [str(tmp_path / "train25" / f"myops_training_101_{token}.nii.gz") for token in NAMES],
        "modalities": ["bssfp", "lge", "t2"],
        "label": str(tmp_path / "train25_myops_gd" / "myops_training_101_gd.nii.gz"),
    }
    assert found[0]["case"] == "myops_test_201"
    assert "label" not in found[0]
    parts = prepare("myops2020", tmp_path)
    assert len(take(parts, ["training", "validation"])) == 20
    assert len(parts["test"]) == 5


def test_values_survive_loading_and_the_way_to_regions(tmp_path, caplog):
    write(tmp_path, [101, 102])
    item = cases("myops2020", tmp_path)[0]
    loaded = LoadSubjectd("myops2020")(item)
    assert not caplog.records  # neither of cases side by side nor of a background that is not 0
    truth = torch.from_numpy(nib.load(item["label"]).get_fdata())[None]
    assert loaded["image"].shape == (3, *SHAPE)
    assert torch.equal(loaded["label"].double(), truth)
    regions = LabelsToRegionsd("label", "myops2020")(loaded)["label"]
    for region, values in enumerate([[500], [600], [200, 1220, 2221]]):
        assert torch.equal(regions[region].bool(), torch.isin(truth[0], torch.tensor(values).double()))
    back = DecideLabelsd("label", "myops2020")({"label": regions})["label"]
    assert back.dtype == torch.int16
    assert torch.equal(back.double(), torch.where(truth > 600, 200, truth))
    classes = LabelsToClassesd("label", "myops2020")(loaded)["label"]
    assert torch.equal(classes.unique(), torch.arange(4))
    assert torch.equal(classes == 3, regions[2:].bool())
    assert (check_folder(COHORT, tmp_path)["problems"] == "").all()


def test_swept_plane_by_plane_with_a_network_of_two_dimensions(tmp_path):
    """From the challenge's files to results on regions, with windows of a plane and a softmax over grouped classes."""
    write(tmp_path, [101, 102])
    preprocessing = Compose(
        [
            LoadSubjectd("myops2020"),
            CenterSpatialCropd("image", roi_size=(8, 8, -1)),
            NormalizeIntensityd("image", channel_wise=True),
        ]
    )
    network = TwoStage(out_channels=4, dims=2).eval()
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(CachedDataset(cases("myops2020", tmp_path), preprocessing), batch_size=1),
        network=network,
        iteration_update=SubsetSweep(
            "myops2020",
            [("bssfp",), ("lge", "t2")],
            network,
            ForegroundInferer((8, 8), overlap=0.5, softmax=True),
            Compose([Activationsd("pred", softmax=True), ToFileGridd("pred")]),
            {"empty": "released"},
        ),
    )
    evaluator.run()
    results = evaluator.state.output.results
    assert list(results["region"].unique()) == ["LVB", "RVB", "MYO"]
    assert set(results["modalities"]) == {"bssfp", "lge+t2"}
    assert results.loc[results["metric"] != "divergence", "value"].notna().all()  # it compares with all three
    prediction = evaluator.state.output.planes["threshold/lge+t2"]
    assert prediction.shape == SHAPE[:2]
    assert set(np.unique(prediction)) <= {0, 200, 500, 600}
    assert prediction.any()
