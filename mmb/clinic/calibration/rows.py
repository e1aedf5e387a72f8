"""How good a calibration is, as a table."""

from common.evaluation.report.tables import Table, decimal, framed
from mmb.clinic.calibration.calibration import GOOD_DICE, NOMINAL_COVERAGE, WIDEST, Calibration, LeftOut


def share(part: int, of: int) -> str:
    """Return a share in words, e.g. ``139 of 146 (95 %)``."""
    return f"{part} of {of} ({100 * part / of:.0f} %)" if of else "none"


def left_out_table(calibration: Calibration) -> Table:
    """Return what was said of patients that the calibration was not fitted on, before and after it."""
    rows = {region: each.left_out for region, each in calibration.regions.items()}
    good = f"Dice >= {100 * GOOD_DICE:.0f} %"
    columns = [("", [*rows])]
    columns += [
        (label, [text(each) for each in rows.values()])
        for label, text in (
            ("outlines", _outlines),
            ("expected before", lambda each: decimal(100 * each.raw)),
            ("after", lambda each: decimal(100 * each.expected)),
            ("true Dice (%)", lambda each: decimal(100 * each.dice)),
            (f"certain before: {good}", lambda each: share(each.raw_right, each.raw_usable)),
            (f"usable after: {good}", lambda each: share(each.right, each.usable)),
            ("good ones called so before", lambda each: share(each.raw_right, each.good)),
            ("after", lambda each: share(each.right, each.good)),
            (f"intervals within a factor of {WIDEST:g} that hold", lambda each: share(each.held, each.intervals)),
        )
    ]
    (passed, brains), (missed, tumours) = calibration.passed, calibration.missed
    others = f"{passed} of {brains} outlines in brains without a tumour reach it"
    notes = [
        f"Fitted on {calibration.patients} patients; each row's patients were left out in turn. The intervals are to "
        f"hold {100 * NOMINAL_COVERAGE:.0f} % of all true volumes.",
        f"No tumour is found with confidence below a raw score of {calibration.no_tumour:.2f}: "
        f"{missed} of {tumours} outlines of tumours (Dice of at least 50 %) lie below it"
        f"{f'; {others}' if brains else ''}.",
    ]
    return Table("Left-out patients", framed(columns), notes)


def _outlines(each: LeftOut) -> str:
    return f"{each.outlines}, {each.good} of them good"
