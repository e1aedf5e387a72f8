"""MyoPS 2020: three sequences of the heart's short axis in one space, with the myocardium, its pathology, and blood.

25 subjects with labels (``train25/myops_training_101_C0.nii.gz``, ``_DE``, ``_T2``; ``_gd`` in ``train25_myops_gd``)
and 20 without (``test20``), each volume a few slices ``(X, Y, Z)``. Source: Zhuang 2019 (TPAMI 41), Li et al. 2023
(MedIA 87). PASSION trains on 20 and tests on 5, and publishes no list; the seeded split has 18 to train, 2 to validate
and 5 to test.

Networks see planes along the last axis. The slices are oblique, so reorientation to RAS may make that another axis:
do not put it into the preprocessing.
"""

from __future__ import annotations

from common.cohorts.cohort import Cohort
from common.modalities import LabelSet

PARTS = {"LVB": ("LVB",), "RVB": ("RVB",), "MYO": ("normal", "oedema", "scar")}
"""Blood in the left and the right ventricle, and the left one's myocardium: what PASSION segments."""

MYOPS = Cohort(
    "myops2020",
    ("bssfp", "lge", "t2"),
    LabelSet({"normal": 200, "LVB": 500, "RVB": 600, "oedema": 1220, "scar": 2221}, regions=PARTS, targets=PARTS),
    skull_stripped=False,
    label_tokens=("gd",),
)
