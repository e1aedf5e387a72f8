"""One head on one grid: alignment, skull stripping."""
