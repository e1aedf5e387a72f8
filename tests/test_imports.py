"""An import has no effect but the import."""

import subprocess
import sys

ROOTS = "common", "common.io", "common.networks", "common.engines", "common.papers.m3ae", "mmb", "mmb.predictors.python"


def test_an_import_has_no_effect_but_the_import():
    """Of another program, whose words look like ours, the loggers and filters stay as they are after MONAI's import."""
    code = f"""
import logging, sys, warnings
import monai, monai.bundle, mlflow, ignite.engine, matplotlib.pyplot
loggers = lambda: {{n: l.level for n, l in logging.root.manager.loggerDict.items() if hasattr(l, "level") and l.level}}
before = loggers(), logging.root.level, logging.root.handlers[:], warnings.filters[:], list(sys.argv)
for name in {ROOTS!r}:
    __import__(name)
import common.engines.handlers, common.run, common.engines.sweep
assert before == (loggers(), logging.root.level, logging.root.handlers[:], warnings.filters[:], sys.argv)
"""
    words = ["run", "--config_file=train.json", "--epoch=3", "--output_dir=2024_01"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
