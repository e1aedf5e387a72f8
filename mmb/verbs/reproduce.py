def reproduce(
    table: str,
    weights: str,
    output_dir: str,
    dataset_dir: str | None = None,
    method: str | None = None,
    dry_run: bool = False,
) -> None:
    """Evaluate weights on the split of a paper, and print the published row, with the differences in protocol.

    Args:
        table: JSON file in bundles/tables of the paper's table, e.g. bundles/tables/m3ae_table1_4_s2.json.
        weights: what import_weights made of the authors' file, or your weights.
        output_dir: the folder to write: evaluation/ with the results, and tables/.
        dataset_dir: the folder of the table's cohort, as downloaded.
        method: the row's name in that file, if the weights do not say it, e.g. "RFNet + GSS".
        dry_run: evaluate a few fake cases instead of the cohort's data. The measured numbers mean nothing.
    """
    from mmb.experiments.reproduction import reproduce as run

    run(table, weights, output_dir, dataset_dir, method, dry_run)
