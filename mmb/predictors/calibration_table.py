"""How good a calibration is, as a table."""

import pandas as pd

from common.evaluation.report.tables import Table, decimal
from mmb.predictors.calibration import GOOD_DICE, NOMINAL_COVERAGE, WIDEST, Calibration, LeftOut


def share(part: int, of: int) -> str:
    """Return a share in words, e.g. ``139 of 146 (95 %)``."""
    return f"{part} of {of} ({100 * part / of:.0f} %)" if of else "none"


def left_out_table(calibration: Calibration) -> Table:
    """Return what was said of patients that the calibration was not fitted on, before and after it."""
    good = f"Dice >= {100 * GOOD_DICE:.0f} %"
    labels = (
        "", "outlines", "expected before", "after", "true Dice (%)", f"certain before: {good}", f"usable after: {good}",
        "good ones called so before", "after", f"intervals within a factor of {WIDEST:g} that hold",
    )  # fmt: skip
    rows = [(region, *_row(each.left_out)) for region, each in calibration.regions.items()]
    (passed, brains), (missed, tumours) = calibration.passed, calibration.missed
    others = f"{passed} of {brains} outlines in brains without a tumour reach it"
    units = ("source" if each.left_out.sources else "patient" for each in calibration.regions.values())
    notes = [
        f"Fitted on {calibration.patients} patients; one {' or '.join(dict.fromkeys(units))} left out at a time. The "
        f"intervals are to hold {100 * NOMINAL_COVERAGE:.0f} % of all true volumes.",
        f"No tumour is found with confidence below a raw score of {calibration.no_tumour:.2f}: "
        f"{missed} of {tumours} outlines of tumours (Dice of at least 50 %) lie below it"
        f"{f'; {others}' if brains else ''}.",
        f"Below {calibration.doubted_below:.2f} there may be no tumour: {calibration.doubted[0]} of "
        f"{calibration.doubted[1]} outlines of tumours lie below it.",
        f"A tumour is found with confidence in {calibration.found[0]} of {calibration.found[1]} results of patients "
        "with one.",
    ]
    return Table("Left-out patients", pd.DataFrame(rows, columns=labels, dtype=object), notes)


def _row(each: LeftOut) -> tuple[str, ...]:
    return (
        f"{each.outlines}, {each.good} of them good",
        *(decimal(100 * dice) for dice in (each.raw, each.expected, each.dice)),
        share(each.raw_right, each.raw_usable),
        share(each.right, each.usable),
        share(each.raw_right, each.good),
        share(each.right, each.good),
        share(each.held, each.intervals),
    )
