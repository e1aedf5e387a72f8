"""What holds for every loss on class indices: precision, plain tensors, and labels that do not fit the head."""

from inspect import signature

import pytest
import torch
from baselines import test_cotraining_training as cotraining
from baselines import test_gated_training as gated
from baselines import test_hved_training as hved
from losses import test_fusion as fusion
from monai.data import MetaTensor
from papers import test_gss_training as gss
from papers import test_mag_ms_training as mag_ms
from papers import test_passion_training as passion
from torch.utils._pytree import tree_leaves, tree_map

from common.baselines.hved import HVEDLoss, SoftmaxLoss
from common.baselines.pmkl import PMKLLoss
from common.baselines.robustseg import RobustSegLoss
from common.losses.fusion import FusionLoss
from common.losses.gated import SegmentationLoss
from common.modalities import IGNORED
from common.networks.gated import GatedOutput
from common.papers.gss import GSSLoss
from common.papers.m3ae import DiceBCELoss, FineTuningLoss, Pretraining, PretrainingLoss
from common.papers.mag_ms import MagMSLoss
from common.papers.medmap import AlignedLoss
from common.papers.passion import PassionLoss

LOSSES = {
    "ACN": (lambda: cotraining.loss_of("acn"), lambda: (cotraining.output("acn"), cotraining.TARGET.clone())),
    "SMU-Net": (lambda: cotraining.loss_of("smunet"), lambda: (cotraining.output("smunet"), cotraining.TARGET.clone())),
    "fusion": (FusionLoss, lambda: (fusion.output([[True, True], [True, False]]), fusion.label(2))),
    "GSS": (gss.loss, lambda: (gss.output(), gss.label())),
    "U-HeMIS": (SoftmaxLoss, lambda: (hved.output().completed.logits, hved.label())),
    "U-HVED": (HVEDLoss, lambda: (hved.output(), hved.label())),
    "MAG-MS": (MagMSLoss, lambda: (mag_ms.output(), mag_ms.label())),
    "PASSION": (passion.passion, lambda: (passion.output(), passion.label())),
    "PMKL": (PMKLLoss, gated.student_step),
    "teacher": (SegmentationLoss, lambda: (GatedOutput(gated.two_samples()[0], None), gated.two_samples()[1])),
    "RobustSeg": (
        RobustSegLoss,
        lambda: gated.reconstructed([[True, True], [True, False]], [1.0, 4.0, -3.0], [1.0, 2.0, 3.0], [1.0] * 3),
    ),
}
"""Name -> the loss, and a function that returns random outputs and their label."""
META = ("fusion", "GSS", "U-HeMIS", "MAG-MS", "PASSION", "teacher")
"""Those that take outputs which are MetaTensors; the networks of the others return plain tensors."""
each = pytest.mark.parametrize("name", LOSSES)


def converted(output, dtype, kind):
    """Return an output whose floating-point maps are of a type and a kind of tensor."""

    def convert(x):
        maps = isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 3
        return x.to(dtype).as_subclass(kind) if maps else x

    return tree_map(convert, output)


PAPERS = {
    GSSLoss: {"task_weight": 0.7, "kd_weight": 0.3, "tau": 8, "leader_threshold": 0.65, "member_threshold": 0.75,
              "rho": 0.3, "alpha": 0.2},
    Pretraining: {"mask_ratio": 0.875, "patch_size": 16},
    PretrainingLoss: {"gamma": 0.005},
    DiceBCELoss: {"dice_weight": 0.7, "ce_weight": 0.3},
    FineTuningLoss: {"lambda_con": 0.1, "dice_weight": 0.7, "ce_weight": 0.3},
    MagMSLoss: {"lambda_kl": 1, "gamma": 1, "temperature": 1},
    AlignedLoss: {"alpha": 1 / 8, "prior": "flair", "anchor": "adaptive"},
    PassionLoss: {"lambda_1": 0.5, "lambda_2": 0.1, "temperature": 4, "gamma": 0.01, "growth": (0, 100, 200),
                  "growth_factor": 1.5, "beta_range": (0.1, 4.0)},
}  # fmt: skip
"""Class -> constants of its paper or of the code released with it."""


@pytest.mark.parametrize("part", PAPERS)
def test_defaults_are_those_of_the_paper(part):
    given = {name: each.default for name, each in signature(part).parameters.items()}
    assert {name: given[name] for name in PAPERS[part]} == PAPERS[part]


@each
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_losses_are_float32_under_autocast_and_plain_for_meta_tensors(name, dtype, tolerance):
    make, example = LOSSES[name]
    output, label = example()
    expected, loss, kind = make()(output, label), make(), MetaTensor if name in META else torch.Tensor
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(converted(output, dtype, kind), MetaTensor(label))
    assert type(found) is torch.Tensor
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in loss.terms.values())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)


@each
@pytest.mark.parametrize("value", [-1, 5])
def test_a_class_that_the_head_lacks_is_refused(name, value):
    make, example = LOSSES[name]
    output, label = example()
    label.view(-1)[0] = value
    with pytest.raises(ValueError, match="Class counts of network, cohort and loss disagree"):
        make()(output, label)


@each
def test_a_label_of_another_shape_is_refused(name):
    make, example = LOSSES[name]
    output, label = example()
    with pytest.raises(ValueError, match=rf"expected \({len(label)}, 1, .*: one class index per voxel"):
        make()(output, label[:, :, 1:])


def parts_of(output, keep):
    """Return a training output whose maps are ``keep`` of those on the label's grid, without heads of coarser grids."""
    if isinstance(output, torch.Tensor):
        return keep(output) if output.ndim > 3 and max(output.shape[2:]) > 1 else output
    if not isinstance(output, tuple):
        return output
    parts = {name: [] if name == "deep" else parts_of(getattr(output, name), keep) for name in output._fields}
    return type(output)(**parts)


IGNORING = {name: LOSSES[name] for name in ("fusion", "GSS", "U-HeMIS", "MAG-MS", "PASSION")}
IGNORING["PMR"] = (lambda: passion.passion(training="pmr"), LOSSES["PASSION"][1])


@pytest.mark.parametrize("name", IGNORING)
def test_ignored_voxels_count_as_if_they_had_been_cut_off(name):
    """No loss, no gradient, no share in any mean: the terms are those of the volume without its last plane."""
    make, example = IGNORING[name]
    output, label = example()
    expected, found = make(), make()
    small = expected(parts_of(output, lambda x: x[..., :-1]), label[..., :-1])
    label[..., -1] = IGNORED
    whole = parts_of(output, lambda x: x.detach().requires_grad_())
    total = found(whole, label)
    assert total.item() == pytest.approx(small.item(), rel=1e-5)
    assert {k: v.item() for k, v in found.terms.items()} == pytest.approx(
        {k: v.item() for k, v in expected.terms.items()}, rel=1e-5
    )
    total.backward()
    maps = [x for x in tree_leaves(whole) if isinstance(x, torch.Tensor) and x.grad is not None and x.shape[-1] > 1]
    assert maps
    assert all((x.grad[..., -1] == 0).all() and (x.grad != 0).any() for x in maps)


@pytest.mark.parametrize("name", sorted({*LOSSES} - {*IGNORING, "U-HVED"}))
def test_losses_that_cannot_ignore_say_so(name):
    make, example = LOSSES[name]
    output, label = example()
    label.view(-1)[0] = IGNORED
    with pytest.raises(ValueError, match="contains voxels to ignore, which this method's loss does not support"):
        make()(output, label)
