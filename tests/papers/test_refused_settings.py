"""What training steps and losses of papers and baselines refuse: each message has the key, its value, what is expected.

What `bundles/test_every_bundle.py` asks of the bundles' configs is not repeated here.
"""

import pytest
import torch
from torch import nn

from common.baselines.cotraining import ACNLoss, SMUNetLoss
from common.baselines.hved import HVEDLoss
from common.baselines.pmkl import PMKLLoss
from common.baselines.robustseg import Disentanglement, RobustSegLoss
from common.losses.fusion import FusionLoss
from common.networks import M3AE, RFNet
from common.papers.gss import GSSLoss
from common.papers.m3ae import DiceBCELoss, FineTuning, FineTuningLoss, Pretraining, PretrainingLoss, prepare_fill
from common.papers.mag_ms import MagMSLoss
from common.papers.medmap import AlignedLoss, FeatureAlignment
from common.papers.passion import PassionLoss, SelfDistillation

NAMES = ("t1", "t1c", "t2", "flair")
CLASSES = ("BG", "NCR", "ED", "ET")
LEADERS = {"BG": ["flair"], "NCR": ["t1c"], "ED": ["flair", "t2"], "ET": ["t1c"]}
RFNET = RFNet(width=4, crop=(16, 16, 16))


def gss(**changes):
    return GSSLoss(**{"modalities": NAMES, "classes": CLASSES, "leaders": LEADERS, **changes})


def led(**leaders):
    return gss(leaders=LEADERS | leaders)


def passion(**changes):
    return PassionLoss(**{"modalities": NAMES, "counts": (8, 6, 2, 4), "subjects": 10, **changes})


def aligned(**settings):
    return AlignedLoss(nn.MSELoss(), NAMES, **settings)


def fill(fill, **settings):
    prepare_fill(M3AE(grid=(8, 8, 8), width=8), fill, None, **settings)


@pytest.mark.parametrize(
    ("make", "settings", "facts"),
    [
        (ACNLoss, {"knowledge_weight": -1, "width": 8}, "knowledge_weight -1: .* 0"),
        (SMUNetLoss, {"style_discriminator": "none"}, "style_discriminator 'none': .*'pooled', 'released'"),
        (SMUNetLoss, {"ramp_epochs": 0}, "ramp_epochs 0: .* 1"),
        (FusionLoss, {"fusion_start_epoch": -1}, "fusion_start_epoch -1"),
        (led, {"ED": ["t1", "t2", "flair"]}, "'ED' has .* one or two of t1, t1c, t2, flair"),
        (led, {"ED": ["t1", "t1"]}, "'ED' has .* one or two"),
        (led, {"ED": "t1"}, "'ED' has 't1'; .* list"),
        (led, {"ET": ["pet"]}, r"'ET' has \['pet'\]; .* t1, t1c, t2, flair"),
        (led, {"NET": ["t1"]}, "NET; expected those of BG, NCR, ED, ET"),
        (gss, {"modalities": ("t2", "flair"), "leaders": {"ED": ["flair", "t2"]}, "classes": ("ED",)}, "not all"),
        (gss, {"votes": "code"}, "votes 'code': .*'paper', 'released'"),
        (gss, {"kd": "ce"}, "kd 'ce'"),
        (gss, {"scale": "one"}, "scale 'one'"),
        (gss, {"task": "all"}, "task 'all'"),
        (gss, {"mask": "none"}, "mask 'none'"),
        (gss, {"distillation": "self"}, "distillation 'self'"),
        (gss, {"alpha": 1.0}, "alpha 1.0"),
        (gss, {"tau": 0.0}, "tau 0.0"),
        (HVEDLoss, {"kl_weight": -1}, "kl_weight -1: .* 0"),
        (HVEDLoss, {"reconstruction_weight": -1}, "reconstruction_weight -1: .* 0"),
        (Pretraining, {"network": None, "masking": "random"}, "masking 'random': .*'m3ae'"),
        (PretrainingLoss, {"regulariser": "l2"}, "regulariser 'l2': .*'mean_square', 'norm'"),
        (fill, {"fill": "noise"}, "fill 'noise': .*'x_sub', 'zero', 'mean'"),
        (fill, {"fill": "x_sub", "x_sub_std": -1}, "x_sub_std -1: .* 0"),
        (FineTuning, {"network": None, "views": "all"}, "views 'all': .*'random', 'full_and_incomplete'"),
        (FineTuningLoss, {"consistency": "decoder"}, "'decoder': .*'bottleneck', 'quarter_logits'"),
        (DiceBCELoss, {"ce_weight": -1}, "ce_weight -1: .* 0"),
        (MagMSLoss, {"gamma": -0.1}, "gamma -0.1"),
        (aligned, {"alpha": -1}, "alpha -1: .* 0"),
        (FeatureAlignment, {"method": None, "network": RFNET}, "RFNet has 0 feature encoders .* expected one"),
        (passion, {"counts": (8, 6, 2)}, r"counts \[8, 6, 2\]: .* t1, t1c, t2, flair, 0 to 10"),
        (passion, {"counts": (8, 6, 2, -1)}, "0 to 10"),
        (passion, {"counts": (8, 6, 2, 11)}, "0 to 10"),
        (passion, {"beta_range": (2, 1)}, "beta_range 1: .* 2"),
        (SelfDistillation, {"network": RFNET, "drop_modalities": True, "perfect_data": True}, "moddrop"),
        (PMKLLoss, {"temperature": 0}, r"temperature 0: .* 0\.01"),
        (PMKLLoss, {"kd_weight": -1}, "kd_weight -1: .* 0"),
        (RobustSegLoss, {"kl_weight": -0.1}, r"kl_weight -0\.1: .* 0"),
        (Disentanglement, {"network": None, "keep": 1.5}, r"keep 1\.5: .* 0 to 1"),
    ],
)
def test_a_wrong_setting_is_named(make, settings, facts):
    with pytest.raises(ValueError, match=facts):
        make(**settings)


def test_a_crop_that_patches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="patch_size 16"):
        Pretraining(M3AE(grid=(32, 32, 32), width=8))(torch.rand(1, 4, 24, 32, 32))
