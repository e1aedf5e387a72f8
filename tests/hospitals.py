"""Hospitals of a federation with different cases and sequences of the phantom."""

import json

SETTINGS = {"spacing": [6, 6, 6], "crop": [16, 16, 16], "backbone": "RFNet", "missing_rates": None}
SETTINGS |= {"val_subsets": [["t1c", "t2", "flair"]]}


def site_list(coarse_dir, path, training, without=()):
    """Write a site's datalist: the first subjects of the phantom, without some sequences."""
    whole = json.loads((coarse_dir / "datalist.json").read_text())

    def less(item):
        kept = [number for number, name in enumerate(item["modalities"]) if name not in without]
        return {**item, **{key: [item[key][number] for number in kept] for key in ("image", "modalities")}}

    parts = {"training": whole["training"][training], "validation": whole["validation"], "test": []}
    path.write_text(json.dumps({**whole, **{part: [less(item) for item in items] for part, items in parts.items()}}))
    return {"dataset_dir": str(coarse_dir), "datalist": str(path)}
