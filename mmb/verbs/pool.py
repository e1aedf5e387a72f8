def pool(output_dir: str, name: str, *folders: str) -> None:
    """Combine the evaluations of all folds of a cross-validation, with each case from the fold that tested it.

    Args:
        output_dir: the folder to write, which compare accepts like any evaluation.
        name: name of the method.
        folders: the output folders of all folds' evaluations.
    """
    from common.evaluation.metrics.results import write_evaluation
    from common.evaluation.report.tables import counted
    from mmb.experiments.comparison.combine import pool_folds, require_apart
    from mmb.experiments.evaluations import read_evaluation

    require_apart(output_dir, folders)
    pooled = pool_folds(name, [read_evaluation(folder, folder) for folder in folders])
    write_evaluation(pooled, output_dir)
    print(f"{output_dir}: {name}, {counted(pooled.results['case'].nunique(), noun='case')} from {len(folders)} folds")
