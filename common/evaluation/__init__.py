"""Metrics, tables and figures: arrays in, results out."""

from common.evaluation.figures import dice_heatmap, substitute_figure
from common.evaluation.metrics import region_dice
from common.evaluation.tables import subset_table, variant_table, write_results

__all__ = ["dice_heatmap", "region_dice", "subset_table", "substitute_figure", "variant_table", "write_results"]
