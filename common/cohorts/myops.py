"""MyoPS 2020: three aligned short-axis sequences of the heart, with labels of myocardium, its pathology, and blood.

25 subjects with labels (``train25/myops_training_101_C0.nii.gz``, ``_DE``, ``_T2``; ``_gd`` in ``train25_myops_gd``)
and 20 without (``test20``); each volume ``(X, Y, Z)`` has a few slices. Source: Zhuang 2019 (TPAMI 41), Li et al. 2023
(MedIA 87). PASSION trains on 20 and tests on 5 without publishing a list; the seeded split has 18 training, 2
validation and 5 test cases.

Networks process planes along the last axis. The slices are oblique, so reorientation to RAS may turn another axis into
the last one: do not use it in preprocessing.
"""

from common.cohorts.cohort import Cohort
from common.modalities import LabelSet

PARTS = {"LVB": ("LVB",), "RVB": ("RVB",), "MYO": ("normal", "oedema", "scar")}
"""PASSION's targets: blood in the left and right ventricles, and the left ventricle's myocardium."""
MYOPS = Cohort(
    "myops2020",
    ("bssfp", "lge", "t2"),
    LabelSet({"normal": 200, "LVB": 500, "RVB": 600, "oedema": 1220, "scar": 2221}, regions=PARTS, targets=PARTS),
    skull_stripped=False,
    case_names=r"myops_(training|test)_\d+",
    image_files="{case}_{modality}",
    label_files=("{case}_gd",),
)
