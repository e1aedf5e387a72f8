import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from matplotlib.image import imread

from common.engines import EpochLosses
from common.papers.passion import PassionLoss, PreferenceBalancer, updated_beta

MODALITIES = ("t1", "t1c", "t2", "flair")
ALL = torch.ones(2, 4, dtype=torch.bool)
DISTANCES = torch.tensor([[0.1, 0.2, 0.3, 0.2], [0.3, 0.2, 0.3, 0.4]])


def passion(**changes):
    return PassionLoss(MODALITIES, (8, 6, 2, 4), 10, **changes)


def run(loss, folder, epochs, start=0):
    """Run epochs of two batches with given distances; return the metrics after each epoch."""
    seen = []

    def step(engine, scale):
        distance = scale * DISTANCES * torch.tensor([1.0, engine.state.epoch, 1, 1])
        loss.sums += distance.sum(dim=0)  # as its forward pass does
        loss.counts += ALL.sum(dim=0)
        return {"loss": torch.tensor(0.0)}

    engine = Engine(step)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", start))
    EpochLosses(loss).attach(engine)
    PreferenceBalancer(loss, str(folder)).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(dict(e.state.metrics)))
    engine.run([1.0, 2.0], max_epochs=epochs)
    return seen


def test_each_epoch_publishes_its_preference_and_the_next_ones_beta(tmp_path):
    seen = run(passion(), tmp_path, 2)
    beta = torch.ones(4)
    for epoch, metrics in enumerate(seen, 1):
        mean = 1.5 * DISTANCES.mean(dim=0) * torch.tensor([1.0, epoch, 1, 1])
        preference = 1 - mean / mean.mean()
        beta = updated_beta(beta, preference, 0.015)
        assert [metrics[f"rp_{name}"] for name in MODALITIES] == pytest.approx(preference.tolist(), abs=1e-6)
        assert [metrics[f"beta_{name}"] for name in MODALITIES] == pytest.approx(beta.tolist())


def test_history_is_a_table_and_a_picture(tmp_path):
    seen = run(passion(), tmp_path / "new", 3)
    table = pd.read_csv(tmp_path / "new" / "preference.csv")
    assert list(table.columns) == ["epoch", "modality", "relative_preference", "beta"]
    assert table["epoch"].tolist() == [epoch for epoch in (1, 2, 3) for _ in MODALITIES]
    assert table["modality"].tolist() == list(MODALITIES) * 3
    assert table["relative_preference"][5] == pytest.approx(seen[1]["rp_t1c"])
    assert table["beta"][5] == pytest.approx(seen[1]["beta_t1c"])
    picture = imread(tmp_path / "new" / "preference.png")
    assert picture.shape[1] > 500
    assert picture.std() > 0.01
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["preference.csv", "preference.png"]


def test_a_resumed_run_continues_the_history(tmp_path):
    whole, part, state = passion(), passion(), passion()
    run(whole, tmp_path / "whole", 4)
    run(part, tmp_path / "part", 2)
    state.load_state_dict(part.state_dict())  # the checkpoint
    run(part, tmp_path / "part", 3, start=2)  # killed after this epoch, before its checkpoint
    run(state, tmp_path / "part", 4, start=2)
    tables = [pd.read_csv(tmp_path / name / "preference.csv") for name in ("whole", "part")]
    pd.testing.assert_frame_equal(*tables)


def test_a_new_run_in_the_same_folder_starts_a_new_history(tmp_path):
    run(passion(), tmp_path, 3)
    run(passion(), tmp_path, 1)
    assert pd.read_csv(tmp_path / "preference.csv")["epoch"].tolist() == [1] * 4


def test_only_the_first_rank_writes_and_all_update_from_the_sum(tmp_path, monkeypatch):
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("ignite.distributed.all_reduce", lambda x: x + torch.tensor([2.0, 0, 0, 0]))
    loss = passion()
    loss.sums.copy_(torch.tensor([1.0, 1, 1, 1]))
    loss.counts.copy_(torch.tensor([1.0, 1, 1, 1]))
    engine = Engine(lambda e, b: None)
    PreferenceBalancer(loss, str(tmp_path)).attach(engine)
    engine.run([0], max_epochs=1)
    # sums and counts are both 3, 1, 1, 1: on average all are at the same distance
    assert [engine.state.metrics[f"rp_{name}"] for name in MODALITIES] == [0.0] * 4
    assert list(tmp_path.iterdir()) == []
