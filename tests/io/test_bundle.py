"""How the folder of a bundle is found."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from common.io import bundle as module
from common.io import (
    bundle_root,
    check_counts,
    errors_in_one_line,
    file_digest,
    given_options,
    refuse_unknown_options,
    shipped_weights,
    tell_shipped_weights,
)

REPOSITORY = Path(module.__file__).parents[2]


def make(folder: Path, name: str) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"bundle": name}))
    return folder


def test_working_directory_that_is_the_bundle(tmp_path, monkeypatch):
    make(tmp_path, "m3ae")
    make(tmp_path / "bundles" / "m3ae", "m3ae")
    monkeypatch.chdir(tmp_path)
    assert bundle_root("m3ae") == str(tmp_path)


def test_bundles_below_the_working_directory(tmp_path, monkeypatch):
    make(tmp_path, "another")
    inner = make(tmp_path / "bundles" / "m3ae", "m3ae")
    monkeypatch.chdir(tmp_path)
    assert bundle_root("m3ae") == str(inner)


def test_elsewhere_it_is_beside_common(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bundle_root("m3ae") == str(REPOSITORY / "bundles" / "m3ae")


def copied(folder: Path):
    """Return the module as if it lay in the `common` of a download."""
    (folder / "common" / "io").mkdir(parents=True)
    copy = shutil.copy(module.__file__, folder / "common" / "io")
    spec = importlib.util.spec_from_file_location("copy_of_bundle", copy)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_download_with_common_beside_configs(tmp_path, monkeypatch):
    download = make(tmp_path / "download", "m3ae")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert copied(download).bundle_root("m3ae") == str(download)


def test_download_beside_the_one_that_common_came_with(tmp_path, monkeypatch):
    download, other = make(tmp_path / "passion", "passion"), make(tmp_path / "m3ae", "m3ae")
    monkeypatch.chdir(tmp_path)
    assert copied(download).bundle_root("m3ae") == str(other)


def test_package_of_another_version_of_common(tmp_path, monkeypatch):
    bundle = make(tmp_path, "m3ae")
    monkeypatch.chdir(tmp_path)
    (bundle / "manifest.json").write_text(json.dumps({"common": "99.0.0"}))
    for entry in (lambda: bundle_root("m3ae"), lambda: refuse_unknown_options(str(bundle))):
        with pytest.raises(ValueError, match=r"was made with version 99\.0\.0 of `common`"):
            entry()


def test_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bundles" / "own", "own")
    (tmp_path / "bundles" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"'nosuch' was not found in .* one of gss, m3ae, .*, own, pas") as info:
        bundle_root("nosuch")
    assert str(tmp_path / "bundles" / "nosuch") in str(info.value)
    for broken in ("{", "[]"):
        (tmp_path / "bundles" / "own" / "configs" / "metadata.json").write_text(broken)
        with pytest.raises(ValueError, match=r"own/configs/metadata\.json: (not JSON|holds list)"):
            bundle_root("nosuch")
    (tmp_path / "bundles" / "own" / "configs" / "metadata.json").unlink()
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    with pytest.raises(FileNotFoundError, match="pass --bundle_root"):  # a download has no other bundles
        copied(tmp_path / "download").bundle_root("nosuch")


def options(monkeypatch, *words):
    """Make this process appear to have been started with a command line."""
    monkeypatch.setattr("sys.argv", ["/lib/monai/bundle/__main__.py", "run", *words])


@pytest.fixture
def configs(tmp_path):
    """A bundle's folder with a training config, an overlay, an ablation of both, and another config."""
    folder = make(tmp_path, "tiny") / "configs"
    contents = {
        "train": {"epochs": 1, "train": {"lr": 1.0}, "resume": False},
        "recipe": {"+imports": [], "masks": None},
        "ablation": {"configs": ["train.json", "recipe.json"], "variants": {}},
        "other": {"teacher_epochs": 3},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_options_are_those_of_the_configs_that_are_run(configs, monkeypatch):
    root, train, recipe = str(configs.parent), configs / "train.json", configs / "recipe.json"
    for given in (("--config_file", str(train)), (f"--config_file=['{train}','{recipe}']", "--masks", "mr2468")):
        options(monkeypatch, *given, "--epochs", "3", "--train#lr=0.5", "--resume")
        refuse_unknown_options(root)
    options(monkeypatch, "--config_file", str(train), "--masks", "mr2468")
    with pytest.raises(ValueError, match="Option --masks is not a key of the configs that run in"):
        refuse_unknown_options(root)
    options(monkeypatch, "--config_file", str(train), "--epochs", "many")
    with pytest.raises(ValueError, match="epochs 'many': expected a number, such as 1"):
        refuse_unknown_options(root)
    for nested in ("--train#rl", "--train::rl", "--train#lr#x", "--tiny#train#lr"):
        options(monkeypatch, "--config_file", str(train), nested, "0.5")
        with pytest.raises(
            ValueError, match=f"Option {nested if 'train' in nested[:8] else '--tiny'} is not a key of the"
        ):
            refuse_unknown_options(root)
    options(monkeypatch, "--config_file", str(train), "--epoch", "3")
    with pytest.raises(ValueError, match="did you mean --epochs"):
        refuse_unknown_options(root)


def test_options_of_an_ablation_are_also_those_of_its_trainings(configs, monkeypatch):
    root, ablation = str(configs.parent), str(configs / "ablation.json")
    options(monkeypatch, "--config_file", ablation, "--masks", "mr2468", "--imports", "[]")
    refuse_unknown_options(root)
    options(monkeypatch, "--config_file", ablation, "--configs", "['train.json']", "--masks", "mr2468")
    with pytest.raises(ValueError, match="Option --masks"):
        refuse_unknown_options(root)
    options(monkeypatch, "--config_file", ablation, "--configs", "['train.json','other.json']", "--teacher_epochs", "9")
    refuse_unknown_options(root)


def test_options_are_read_as_monai_reads_them(monkeypatch):
    words = [
        "--config_file",
        "x.json",
        "--epochs",
        "3",
        "--train#lr=0.5",
        "--resume",
        "--crop",
        "[8,8]",
        "--anchor",
        "$None",
    ]
    options(monkeypatch, *words)
    assert given_options() == {"epochs": 3, "train#lr": 0.5, "resume": True, "crop": [8, 8], "anchor": "$None"}
    monkeypatch.setattr("sys.argv", ["pytest", *words])
    assert given_options() == {}


def raised(work):
    """Return the error that MONAI raises for an error in a config's expression, as the exception hook receives it."""
    try:
        try:
            work()
        except Exception as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        return type(error), error, error.__traceback__


def test_what_is_refused_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    monkeypatch.setattr("sys.argv", ["pytest"])
    before = sys.excepthook
    errors_in_one_line()
    assert sys.excepthook is before
    options(monkeypatch)
    errors_in_one_line()
    sys.excepthook(*raised(lambda: check_counts(epochs="many")))
    assert capsys.readouterr().err == "error: epochs 'many': expected a whole number, 1 or more.\n"
    sys.excepthook(*raised(lambda: int("many")))  # not a message of this package
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("RuntimeError: Failed to evaluate ConfigExpression\n")


@pytest.mark.parametrize("name", ["m3ae", "mag_ms", "medmap", "passion", "gss"])
@pytest.mark.parametrize("config", ["train", "multi_gpu_train", "inference"])
def test_every_bundle_says_so_first(name, config):
    begin = json.loads((REPOSITORY / "bundles" / name / "configs" / f"{config}.json").read_text())["initialize"]
    first = begin.index("$io.errors_in_one_line()")
    assert first == (1 if config == "multi_gpu_train" else 0)
    assert begin[first + 1] == "$io.refuse_unknown_options(@bundle_root)"


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
    tell_shipped_weights(str(own), str(tmp_path))
    assert shipped_weights(own, tmp_path) is None
    assert not caplog.text
    tell_shipped_weights(str(weights), str(tmp_path))
    assert "trained on: 39 cases. Research only." in caplog.text


@pytest.mark.parametrize("name", ["model.pt", "other.pt"])
def test_weights_of_another_version_of_the_bundle_are_refused(tmp_path, name):
    a_bundle_with_weights(tmp_path)
    found = tmp_path / "models" / name
    found.write_bytes(b"newer")
    with pytest.raises(ValueError, match=rf"{name} \(SHA-256 \w+\) is not the file that tiny 0\.2\.0 .*--ckpt_path"):
        shipped_weights(found, tmp_path)
