"""The weights that come with a bundle."""

import json
from pathlib import Path

import pytest
import torch

from common.io import file_digest, shipped_weights, tell_weights, write_checkpoint
from common.io.facts import TrainingFacts


def a_bundle_with_weights(folder: Path) -> Path:
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    weights = folder / "models" / "model.pt"
    weights.write_bytes(b"weights")
    said = {"sha256": file_digest(weights), "data_source": "39 cases"}
    metadata = {"bundle": "tiny", "version": "0.2.0", "intended_use": "Research only.", "weights": {"model.pt": said}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return weights


def test_shipped_weights_say_what_they_are_and_others_do_not(tmp_path, caplog):
    weights = a_bundle_with_weights(tmp_path)
    own = tmp_path / "own.pt"
    own.write_bytes(b"other weights")
    with caplog.at_level("INFO"):
        tell_weights(str(own), str(tmp_path))
        assert shipped_weights(own, tmp_path) is None
        assert "own.pt: has no record of its training, so the settings of inference.json are used" in caplog.text
        facts = TrainingFacts(method="tiny", bundle="tiny", cases=4, settings={"cohort": "brats2023"})
        write_checkpoint({"weight": torch.ones(1)}, own, facts)
        tell_weights(str(own), str(tmp_path))
        assert f"own.pt, SHA-256 {file_digest(own)}: trained on 4 cases of brats2023" in caplog.text
        tell_weights(str(weights), str(tmp_path))
        assert "trained on: 39 cases. Research only." in caplog.text


@pytest.mark.parametrize("name", ["model.pt", "other.pt"])
def test_weights_of_another_version_of_the_bundle_are_refused(tmp_path, name):
    a_bundle_with_weights(tmp_path)
    found = tmp_path / "models" / name
    found.write_bytes(b"newer")
    with pytest.raises(ValueError, match=rf"{name} \(SHA-256 \w+\) is not the file that tiny 0\.2\.0 .*--ckpt_path"):
        shipped_weights(found, tmp_path)
