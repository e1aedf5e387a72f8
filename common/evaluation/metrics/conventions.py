"""The metrics by name, and the conventions on which publications differ."""

from dataclasses import dataclass

PENALTY = 373.13
"""Distance (mm) if only one side has a region: the diagonal of 240 x 240 x 155 mm, as BraTS had it until 2022."""
LESION_PENALTY = 374
"""Distance (mm) of a lesion that is missed or predicted where there is none, in the BraTS challenge of 2023."""
LESION_WISE = {"GLI": (3, 50), "SSA": (3, 50), "PED": (3, 50), "MEN": (1, 50), "MET": (1, 2)}
"""Task of BraTS 2023 -> by how many voxels lesions are dilated, and the volume (mm^3) up to which they do not count."""


@dataclass(frozen=True)
class Metric:
    """How a metric is printed: its name, the factor that values are multiplied by (100 for %), and the unit then."""

    label: str
    unit: str
    factor: float
    best: float | None
    """Value of a perfect prediction in results.csv; None if there is no better or worse."""
    worst: float | None
    """Value of a prediction that misses all of a region, likewise."""


METRICS: dict[str, Metric] = {
    "dice": Metric("Dice", "%", 100, 1, 0),
    "hd95": Metric("HD95", "mm", 1, 0, PENALTY),
    "lesion_dice": Metric("lesion-wise Dice", "%", 100, 1, 0),
    "lesion_hd95": Metric("lesion-wise HD95", "mm", 1, 0, LESION_PENALTY),
    "hd": Metric("Hausdorff distance", "mm", 1, 0, PENALTY),
    "assd": Metric("average surface distance", "mm", 1, 0, PENALTY),
    "surface_dice": Metric("surface Dice", "%", 100, 1, 0),
    "sensitivity": Metric("sensitivity", "%", 100, 1, 0),
    "precision": Metric("precision", "%", 100, 1, 0),
    "volume": Metric("volume", "ml", 1, None, None),
    "reference_volume": Metric("reference volume", "ml", 1, None, None),
    "expected_volume": Metric("expected volume", "ml", 1, None, None),
    "expected_dice": Metric("expected Dice", "%", 100, None, None),
    "entropy": Metric("entropy", "mnat", 1000, None, None),
    "divergence": Metric("divergence from all modalities", "mnat", 1000, None, None),
}
"""Every metric of results.csv by name. The last four need probabilities but no reference: ``expected_volume`` is their
sum times the volume of a voxel, ``expected_dice`` the soft Dice of a prediction and its own probabilities, an estimate
of its Dice; for the others see `common.evaluation.metrics.case.uncertainty`."""

EMPTY = ("brats", "released", "nan", "skip")
HD95 = ("max", "pooled")
AVERAGE = ("case", "voxel")


@dataclass(frozen=True)
class Conventions:
    """The conventions of an evaluation. Results with different conventions must not be compared.

    Attributes:
        empty: how a region is scored that is empty in the reference, in the prediction, or in both.
            ``brats`` (the challenge until 2022): both empty is perfect, one empty is the worst (Dice 0, distances
            `PENALTY` mm).
            ``released`` (PASSION's published code): as brats, but distances are 1.0 mm if one is empty.
            ``nan`` (MONAI): undefined values are NaN and left out of means: all scores if the reference is empty,
            distances and precision also if the prediction is.
            ``skip``: a region that the reference lacks has volumes, but no scores; a region that the prediction misses
            gets the worst scores.
        hd95: ``max``, the larger of the two directed 95th percentiles (MONAI), or ``pooled``, the 95th percentile of
            the distances of both directions together (medpy, and so the papers).
        et_min_voxels: a predicted enhancing tumour of fewer voxels becomes necrosis (RFNet family: 500); 0 is off.
        average: what tables hold: means over cases (``case``), or overlap metrics of the voxels of all cases pooled
            (``voxel``), also of cases without the region. With ``nan`` and ``skip`` these have no Dice, so that
            ``voxel`` needs ``empty`` ``brats`` or ``released``.
        surface_tolerance: tolerance of the surface Dice in mm.
        lesion_wise: the task of BraTS 2023 (`LESION_WISE`: GLI is adult glioma) whose lesion-wise Dice and HD95 are
            measured too (see `common.evaluation.metrics.lesions`), with its own rule for empty regions; None for none.

    Examples:
        >>> import numpy as np
        >>> from common.cohorts import get_cohort
        >>> from common.evaluation import Reference
        >>> from common.evaluation.metrics.conventions import Conventions
        >>> empty, labels = np.zeros((4, 4), int), get_cohort("brats2021").labels
        >>> references = [Reference(empty, labels, (1, 1), Conventions(empty=rule)) for rule in ("brats", "nan")]
        >>> [reference.measure(empty)["ET", "dice"] for reference in references]  # neither has an enhancing tumour
        [1.0, nan]
    """

    empty: str = "brats"
    hd95: str = "max"
    et_min_voxels: int = 0
    average: str = "case"
    surface_tolerance: float = 1.0
    lesion_wise: str | None = None

    def __post_init__(self) -> None:
        for key, allowed in (("empty", EMPTY), ("hd95", HD95), ("average", AVERAGE)):
            if getattr(self, key) not in allowed:
                raise ValueError(f"conventions: {key} is {getattr(self, key)!r}; expected {' or '.join(allowed)}.")
        if self.lesion_wise not in (None, *LESION_WISE):
            raise ValueError(
                f"conventions: lesion_wise is {self.lesion_wise!r}; expected a task of BraTS 2023, "
                f"{', '.join(LESION_WISE)} (GLI is adult glioma), or null."
            )
        for key in ("et_min_voxels", "surface_tolerance"):
            value = getattr(self, key)
            if not (isinstance(value, int | float) and value >= 0):
                raise ValueError(f"conventions: {key} is {value!r}; expected a number, 0 or more.")
        if self.average == "voxel" and self.empty in ("nan", "skip"):
            raise ValueError(
                f"conventions: average 'voxel' with empty {self.empty!r}, which leaves out predicted voxels where the "
                "reference lacks a region; expected empty brats or released for a Dice of all voxels. Change one of "
                "the two."
            )
