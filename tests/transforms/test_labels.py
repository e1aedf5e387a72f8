"""Label maps are converted to regions and back, and keep their place in space."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Flipd

from common.transforms import LabelsToRegionsd, RegionsToLabelsd

AFFINE = torch.diag(torch.tensor([-1.0, -1, 2, 1], dtype=torch.float64))


@pytest.mark.parametrize(
    ("cohort", "ed", "ncr", "et"), [("brats2020", 2, 1, 4), ("brats2023", 2, 1, 3), ("msd_task01", 1, 2, 3)]
)
def test_there_and_back(cohort, ed, ncr, et):
    label = torch.tensor([0, ed, ncr, et], dtype=torch.uint8).reshape(1, 4, 1, 1)
    item = {"label": MetaTensor(label, affine=AFFINE), "case": "x"}
    regions = LabelsToRegionsd("label", cohort)(item)
    assert (regions["label"].shape, regions["label"].dtype) == ((3, 4, 1, 1), torch.uint8)
    assert regions["label"][:, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    back = RegionsToLabelsd("label", cohort)(regions)
    assert torch.equal(back["label"].as_tensor(), label)
    assert back["label"].dtype == torch.uint8
    for volume in (regions["label"], back["label"]):
        assert torch.equal(volume.affine, AFFINE)
    assert torch.equal(item["label"].as_tensor(), label)


def test_trace_of_earlier_transforms_is_kept_for_inversion():
    item = {"label": MetaTensor(torch.tensor([[[[0, 2, 4, 4]]]]), affine=AFFINE)}
    flip = Flipd("label", spatial_axis=2)
    regions = LabelsToRegionsd("label", "brats2020")(flip(item))
    assert flip.inverse(regions)["label"][0, 0, 0].tolist() == [0, 1, 1, 1]


def test_unknown_cohort():
    with pytest.raises(ValueError, match="Unknown cohort 'brats1999'; expected one of phantom, "):
        LabelsToRegionsd("label", "brats1999")
