"""What losses refuse when they are made: a setting is named with its value and what was expected.

What `bundles/test_every_bundle.py` asks of the bundles' configs is not repeated here.
"""

import pytest
from torch import nn

from common.baselines.cotraining import ACNLoss, SMUNetLoss
from common.baselines.hved import HVEDLoss
from common.baselines.pmkl import PMKLLoss
from common.baselines.robustseg import RobustSegLoss
from common.losses.fusion import FusionLoss
from common.papers.gss import GSSLoss
from common.papers.m3ae import FineTuningLoss
from common.papers.mag_ms import MagMSLoss
from common.papers.medmap import AlignedLoss
from common.papers.passion import PassionLoss

NAMES = ("t1", "t1c", "t2", "flair")
CLASSES = ("BG", "NCR", "ED", "ET")
LEADERS = {"BG": ["flair"], "NCR": ["t1c"], "ED": ["flair", "t2"], "ET": ["t1c"]}


def gss(**changes):
    return GSSLoss(**{"modalities": NAMES, "classes": CLASSES, "leaders": LEADERS, **changes})


def led(**leaders):
    return gss(leaders=LEADERS | leaders)


def passion(**changes):
    return PassionLoss(**{"modalities": NAMES, "counts": (8, 6, 2, 4), "subjects": 10, **changes})


def aligned(**settings):
    return AlignedLoss(nn.MSELoss(), NAMES, **settings)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (ACNLoss, {"knowledge_weight": -1, "width": 8}, "knowledge_weight -1: expected a number from 0"),
        (SMUNetLoss, {"style_discriminator": "none"}, "style_discriminator 'none': expected one of 'pooled', 'rel"),
        (SMUNetLoss, {"ramp_epochs": 0}, "ramp_epochs 0: expected a number from 1"),
        (FusionLoss, {"fusion_start_epoch": -1}, "fusion_start_epoch -1"),
        (led, {"ED": ["t1", "t2", "flair"]}, "class 'ED' has .* expected one or two"),
        (led, {"ED": ["t1", "t1"]}, "class 'ED' has .* expected one or two"),
        (led, {"ED": "t1"}, r"class 'ED' has the text 't1'; expected a list, e.g. \['t1'\]"),
        (led, {"ET": ["pet"]}, "class 'ET' has 'pet'; expected some of t1, t1c, t2, flair"),
        (
            gss,
            {"modalities": ("t2", "flair"), "leaders": {"ED": ["flair", "t2"]}, "classes": ("ED",)},
            "class 'ED' has no member left beside flair and t2",
        ),
        (gss, {"votes": "code"}, "votes 'code': expected one of 'paper', 'released'"),
        (gss, {"kd": "ce"}, "kd 'ce'"),
        (gss, {"scale": "one"}, "scale 'one'"),
        (gss, {"task": "all"}, "task 'all'"),
        (gss, {"mask": "none"}, "mask 'none'"),
        (gss, {"distillation": "self"}, "distillation 'self'"),
        (gss, {"alpha": 1.0}, "alpha 1.0"),
        (gss, {"tau": 0.0}, "tau 0.0"),
        (HVEDLoss, {"kl_weight": -1}, "kl_weight -1: expected a number from 0"),
        (HVEDLoss, {"reconstruction_weight": -1}, "reconstruction_weight -1: expected a number from 0"),
        (FineTuningLoss, {"consistency": "decoder"}, "'decoder': expected one of 'bottleneck', 'quarter_logits'"),
        (MagMSLoss, {"gamma": -0.1}, "gamma -0.1"),
        (aligned, {"alpha": -1}, "alpha -1: expected a number from 0"),
        (passion, {"counts": (8, 6, 2)}, r"counts \[8, 6, 2\]: .* each of t1, t1c, t2, flair, 0 to 10"),
        (passion, {"counts": (8, 6, 2, -1)}, "0 to 10"),
        (passion, {"counts": (8, 6, 2, 11)}, "0 to 10"),
        (PMKLLoss, {"temperature": 0}, r"temperature 0: expected a number from 0\.01"),
        (PMKLLoss, {"kd_weight": -1}, "kd_weight -1: expected a number from 0 to inf"),
        (RobustSegLoss, {"kl_weight": -0.1}, r"kl_weight -0\.1: expected a number from 0 to inf"),
    ],
)
def test_a_wrong_setting_is_named(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
