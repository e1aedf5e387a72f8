def leaderboard(
    methods: str,
    output_dir: str,
    cohort: str | None = None,
    dataset_dir: str | None = None,
    at_once: int | None = None,
    dry_run: bool = False,
    slurm: bool = False,
    only: str | None = None,
) -> None:
    """Train and evaluate a list of methods on one cohort, and write a report on all of them and the papers' tables.

    Finished methods are not run again, and interrupted ones are resumed: repeat the same command after a stop.

    Args:
        methods: JSON file, e.g. bundles/leaderboard.json: config keys for all methods (settings) and, by name, each
            method's bundle, overlays on its train.json (configs), and settings. The lists in bundles/tables also
            produce the tables of a paper, with the published numbers beside the measured ones.
        output_dir: the folder to write: a folder for each method, leaderboard.csv with the times, report/, tables/.
        cohort: cohort to train on; by default that of the list, or the phantom.
        dataset_dir: the cohort's folder; the phantom is generated if none is given.
        at_once: number of methods that run in parallel; by default one per GPU, or one on the CPU. 0 trains none, and
            reports on the finished ones.
        dry_run: run the whole list in minutes, with one epoch of a small network for each method, on a few fake cases
            instead of the cohort's data. The measured numbers mean nothing.
        slurm: train nothing here, but write a Slurm job array with a task for each training, OUTPUT_DIR/array.sh.
        only: train and evaluate only the method of this name, without a report, as a task of that array does.
    """
    from mmb.experiments.leaderboard import run_leaderboard

    run_leaderboard(methods, output_dir, cohort, dataset_dir, at_once, dry_run, slurm, only)
