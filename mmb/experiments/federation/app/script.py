"""The script that a job sends to a site; it runs the code that is installed there, with the settings of the plan."""

from pathlib import Path

from mmb.experiments.federation.client import take_part

if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    take_part((here / "plan.txt").read_text(), here.parent / "training")
