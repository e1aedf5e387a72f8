"""A resumed run is the run that was started: its cases, their files and its settings."""

import gzip
import importlib
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser

from common.cohorts.contents import content, copies
from common.cohorts.datalist import load_datalist
from common.run import record as runs
from common.run.record import RunRecord, kept_cases, require_same_settings, require_same_training, split_of_run
from mmb.experiments.checking import write_checked

FREE = ["epochs", "device", "num_workers", "learning_rate"]
SAME = {"crop": [8, 8, 8], "epochs": 3, "net": {"width": 8}, "split": None, "_free_": FREE}


@pytest.fixture
def item(tmp_path):
    """Make the datalist item of a case with one image."""

    def make(case, content=None):
        path = tmp_path / f"{case}.nii.gz"
        path.write_bytes(gzip.compress((content or case).encode()))
        return {"case": case, "image": [str(path)], "modalities": ["t1"]}

    return make


@pytest.fixture
def started(tmp_path, item, monkeypatch):
    """The output folder and the parts of a run that has a checkpoint."""
    parts = {"training": [item("a"), item("b")], "validation": [item("c")], "test": [item("d")]}
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(runs, "running", lambda: SimpleNamespace(parser=ConfigParser(SAME)))
    RunRecord(parts, "iseg2017", str(out), out, resume=False).write()
    torch.save({}, out / "finetuned_last.pt")
    return out, parts


def test_cases_that_were_not_checked_are_named_in_one_line(tmp_path, item, caplog):
    parts = {"training": [item("a"), item("b")], "validation": [], "test": []}

    def said() -> str:
        caplog.clear()
        RunRecord(parts, "iseg2017", str(tmp_path), tmp_path, resume=False).write()
        return "".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")

    assert "2 of 2 cases have not been checked for damage and for copies of a patient (a, b): mmb check" in said()
    write_checked(parts["training"], tmp_path)
    assert said() == ""
    parts["training"] = [item("a"), item("b", content="other")]
    assert "1 of 2 cases have not been checked for damage and for copies of a patient (b)" in said()


class TestCases:
    def test_a_resumed_run_keeps_its_split(self, started):
        out, parts = started
        drawn = {"training": parts["test"] + parts["validation"], "validation": [], "test": parts["training"]}

        assert kept_cases(drawn, out, resume=True) == parts
        assert kept_cases(drawn, out, resume=False) == drawn

    def test_new_cases_are_left_out_and_named(self, started, item, caplog):
        out, parts = started
        more = {**parts, "training": [item("new"), *parts["training"]]}

        assert kept_cases(more, out, resume=True) == parts
        assert "1 cases are new since the run was started (new)" in caplog.text

    def test_a_case_that_has_gone_is_refused(self, started):
        out, parts = started
        with pytest.raises(ValueError, match=r"1 of them are not there any more \(d\)"):
            kept_cases({**parts, "test": []}, out, resume=True)

    def test_a_case_that_was_changed_is_refused_but_not_one_that_was_moved(self, started, item, tmp_path):
        out, parts = started
        moved = tmp_path / "elsewhere.nii.gz"
        moved.write_bytes((tmp_path / "d.nii.gz").read_bytes())
        kept_cases({**parts, "test": [{**parts["test"][0], "image": [str(moved)]}]}, out, resume=True)
        item("b", "another image")
        with pytest.raises(ValueError, match=r"1 of its 4 cases have other images or labels now \(b\)"):
            kept_cases(parts, out, resume=True)

    @pytest.mark.parametrize("change", [{"modalities": ["t2"]}, {"channels": [1]}, {"label_values": {"CSF": 9}}])
    def test_a_case_of_which_something_else_is_said_is_refused(self, started, change):
        out, parts = started
        with pytest.raises(ValueError, match=r"1 of its 4 cases .* \(c\)"):
            kept_cases({**parts, "validation": [{**parts["validation"][0], **change}]}, out, resume=True)

    def test_a_voxel_of_a_label_that_is_not_compressed_counts(self, item, tmp_path):
        label = tmp_path / "label.nii"
        label.write_bytes(bytes(500_000))
        case = {**item("a"), "label": str(label)}
        before = content(case)
        label.write_bytes(bytes(150_000) + b"1" + bytes(349_999))

        assert content(case) != before

    def test_the_evaluation_takes_the_split_of_the_run(self, started, tmp_path):
        out, parts = started
        read = load_datalist(split_of_run(out, None), tmp_path)

        assert {part: [item["case"] for item in read[part]] for part in parts} == {
            part: [item["case"] for item in items] for part, items in parts.items()
        }
        assert split_of_run(tmp_path, "other.json") == "other.json"

    def test_the_next_stage_trains_on_no_other_cases(self, started, item):
        out, parts = started
        require_same_training({**parts, "training": [*parts["training"], item("new")]}, out)
        drawn = {**parts, "training": [parts["training"][0], parts["test"][0]], "test": [parts["training"][1]]}
        with pytest.raises(ValueError, match=r"trained on 1 cases that are not for training now \(b\)"):
            require_same_training(drawn, out)

    def test_without_a_checkpoint_a_run_begins_anew(self, started):
        out, parts = started
        (out / "finetuned_last.pt").unlink()

        assert kept_cases({**parts, "test": []}, out, resume=True)["test"] == []


class TestSettings:
    @pytest.mark.parametrize(
        "change",
        [
            {"crop": [8, 8, 16]},
            {"net": {"width": 16}},
            {"net": {"width": 8, "deep": True}},
            {"split": "cv1of3"},
            {"split_seed": 1},
            {"lambda_con": 0.2},
        ],
    )
    def test_another_setting_is_refused_by_name(self, started, change):
        key = next(iter(change))
        with pytest.raises(ValueError, match=f"started with other settings: {key}.* was .*, is "):
            require_same_settings({**SAME, **change}, started[0])

    @pytest.mark.parametrize(
        "change",
        [
            {"epochs": 9},
            {"device": "cuda:0"},
            {"num_workers": 4},
            {"learning_rate": 1},
            {"_desc_": ""},
        ],
    )
    def test_what_may_change_and_other_ways_to_say_the_same_are_accepted(self, started, change):
        require_same_settings({**SAME, **change}, started[0])

    @pytest.mark.parametrize(
        ("key", "value"), [("network_def", {"_target_": "own_network.Network"}), ("backbone", "own_network.Network")]
    )
    def test_other_code_of_ones_own_network_is_refused(self, started, tmp_path, monkeypatch, key, value):
        monkeypatch.syspath_prepend(tmp_path)
        config = {**SAME, key: value}

        def written(gain):
            sys.modules.pop("own_network", None)
            importlib.invalidate_caches()
            text = f"class Network:\n    def forward(self, image):\n        return image * {gain}\n"
            (tmp_path / "own_network.py").write_text(text)

        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        monkeypatch.setattr(runs, "running", lambda: SimpleNamespace(parser=ConfigParser(config)))
        written(10)
        RunRecord(started[1], "iseg2017", str(started[0]), started[0], resume=False).write()
        written(10)
        require_same_settings(config, started[0])
        written(12)
        with pytest.raises(ValueError, match=r"other settings: the code of own_network\.Network was '\w+', is '\w+'"):
            require_same_settings(config, started[0])

    def test_another_description_of_the_data_is_refused(self, started, tmp_path, monkeypatch):
        path = tmp_path / "own.json"
        path.write_text('{"labels": {"LV": 1, "RV": 2}}')
        config = {**SAME, "cohort": str(path)}
        monkeypatch.setattr(runs, "running", lambda: SimpleNamespace(parser=ConfigParser(config)))
        RunRecord(started[1], "iseg2017", str(started[0]), started[0], resume=False).write()
        require_same_settings(config, started[0])
        path.write_text('{"labels": {"LV": 2, "RV": 1}}')
        with pytest.raises(ValueError, match=r"other settings: the content of .*own\.json was"):
            require_same_settings(config, started[0])

    def test_a_damaged_record_is_refused(self, started):
        (started[0] / "run.json").write_text("{")
        with pytest.raises(ValueError, match="damaged"):
            require_same_settings(SAME, started[0])

    def test_settings_of_another_version_are_compared_where_both_have_them(self, started):
        path = started[0] / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": "0.1"}))

        require_same_settings({**SAME, "new_key": 1}, started[0])
        with pytest.raises(ValueError, match="crop#2"):
            require_same_settings({**SAME, "crop": [8, 8, 9]}, started[0])


class TestCopies:
    @pytest.mark.parametrize("other", ["same", "packed again", "not packed", "linked"])
    def test_a_copy_is_found_whatever_it_is_called(self, item, tmp_path, other):
        one, path = item("one", "x" * 1000), tmp_path / "two.nii.gz"
        if other == "linked":
            path.symlink_to(one["image"][0])
        elif other == "not packed":
            path = tmp_path / "two.nii"
            path.write_bytes(b"x" * 1000)
        else:
            path.write_bytes(gzip.compress(b"x" * 1000, 1 if other == "packed again" else 9))
        two = {"case": "two", "image": [str(path)]}

        assert [(copy.case, copy.other) for copy in copies([one, two])] == [("two", "one")]

    def test_different_images_of_one_length_are_none(self, item):
        assert not list(copies([item("one", "x" * 1000), item("two", "y" * 1000)]))

    def test_a_case_that_names_a_file_twice_is_none(self, item):
        one = item("one")
        assert not list(copies([{**one, "image": one["image"] * 2}]))
