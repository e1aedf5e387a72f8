"""The folder that `zoo` makes goes to the Hugging Face Hub and back by the commands of the guide.

No test reaches the Hub: `Hub` answers in its place, with as much of its interface as these commands use.
"""

import base64
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from http import HTTPStatus
from pathlib import Path

import monai.bundle
import nibabel as nib
import pytest
import yaml
from huggingface_hub import ModelCard, constants, hf_api
from monai.bundle import ConfigParser
from processes import answering, python

from common.io.checkpoints import load_weights
from common.io.files import file_digest
from mmb.experiments.evaluations import read_evaluation
from tools import zoo
from tools.zoo import make_zoo_folder, stored_results

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/models/model.pt"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.SimpleHTTPRequestHandler):
    """Repositories of models, each with one commit: folders ORG/NAME in a directory."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self.answer(self.listing(*self.path.split("?")[0].split("/")[3:]))
        elif "/resolve/" in self.path:
            super().do_GET()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def listing(self, organisation: str, name: str, kind: str, *_: str) -> dict | list:
        """Return branches, the commit or the files of a repository."""
        folder = Path(self.directory, organisation, name)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}
        siblings = [{"rfilename": file} for file in files]
        return {
            "refs": {"branches": [branch], "converts": [], "tags": []},
            "revision": {"id": f"{organisation}/{name}", "sha": COMMIT, "siblings": siblings},
            "tree": [
                {"type": "file", "path": file, "size": path.stat().st_size, "oid": file_digest(path)[:40]}
                for file, path in files.items()
            ],
        }[kind]

    def translate_path(self, path: str) -> str:
        """Return the file of /ORG/NAME/resolve/REVISION/FILE."""
        organisation, name, _, _, *file = path.split("?")[0].strip("/").split("/")
        return str(Path(self.directory, organisation, name, *file))

    def end_headers(self) -> None:
        if self.command in ("GET", "HEAD") and "/resolve/" in self.path:
            path = Path(self.translate_path(self.path))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{file_digest(path)[:40]}"')
        super().end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.answer({"url": f"http://{self.headers['Host']}/{asked['organization']}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self.answer({"files": [{**file, "shouldIgnore": False, "oid": None} for file in files]})
        else:
            self.commit(*self.path.split("/")[3:5], [json.loads(line) for line in body.splitlines()])

    def commit(self, organisation: str, name: str, entries: list[dict]) -> None:
        for value in (entry["value"] for entry in entries if entry["key"] == "file"):
            path = Path(self.directory, organisation, name, value["path"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(value["content"]))
        page = f"http://{self.headers['Host']}/{organisation}/{name}/commit/{COMMIT}"
        self.answer({"success": True, "commitOid": COMMIT, "commitUrl": page})

    def answer(self, value: dict | list) -> None:
        content = json.dumps(value).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The directory of a hub that this process and its children take for the Hub."""
    folder = tmp_path / "hub"
    folder.mkdir()
    with answering(partial(Hub, directory=folder)) as url:
        monkeypatch.setattr(hf_api.api, "endpoint", url)  # these were read from the environment at their import
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        settings = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_none", "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        for key, value in settings.items():
            monkeypatch.setenv(key, value)
        yield folder


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_stored_results_are_those_of_the_shipped_weights(bundle):
    expected = "mean_of_two_networks/by_sequences" if bundle.name == "m3ae" else bundle.name
    assert stored_results(bundle) == ROOT / "docs" / "open_glioma" / "results" / expected


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_hub_reads_the_dice_of_every_subset(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_format", lambda folder: None)  # takes nearly all the time
    folder = make_zoo_folder(bundle, tmp_path)
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert {key: facts[key] for key in ("license", "library_name", "pipeline_tag", "datasets")} == {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "datasets": ["BraTS 2021", "BraTS-Africa"],
    }
    assert facts["tags"][-2:] == ["monai", bundle.name]
    evaluation = read_evaluation(stored_results(bundle))
    dice = evaluation.values("dice").groupby("modalities").mean()
    expected = {f"Dice of {region}, {subset}": dice.loc[subset, region] for subset in dice.index for region in dice}
    expected |= {f"Dice of {region}, all sequences": dice.loc["t1+t1c+t2+flair", region] for region in dice}
    expected |= {f"Dice of {region}, mean of the 15 subsets": dice[region].mean() for region in dice}
    results = ModelCard(text).data.eval_results  # as the Hub's own reader finds them
    assert {result.metric_name: result.metric_value for result in results} == pytest.approx(expected, abs=5e-4)
    assert len(results) == len(expected) == 51
    assert {(one.task_type, one.dataset_type, one.dataset_split) for one in results} == {
        ("image-segmentation", "open_glioma", "test")
    }
    assert "9 cases" in results[0].dataset_name
    links = re.findall(r"\]\(([^)]+)\)", body)
    assert "docs/README.md" in links
    assert [link for link in links if not (folder / link).is_file()] == []
    assert (folder / "models" / "results.csv").read_bytes() == (stored_results(bundle) / "results.csv").read_bytes()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_the_guide_says_what_an_inference_costs(bundle):
    cost = json.loads((bundle / "configs" / "metadata.json").read_text())["inference_cost"]["CPU"]
    row = f"| `{bundle.name}` | {cost['processor_seconds']} s | {cost['memory_mb'] / 1000:.1f} GB |"
    assert row in (ROOT / "docs" / "share.md").read_text().splitlines()


def check_sums(folder: Path) -> None:
    """Assert that the sums hold, and are of all files that the Hub's program did not put there."""
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = {line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {file for file in files if not file.startswith(".cache/")} - {"SHA256SUMS"}


def test_what_is_downloaded_is_whole_and_its_network_takes_its_weights(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_format", lambda folder: None)  # takes nearly all the time
    made = make_zoo_folder(ROOT / "bundles" / "gss", tmp_path / "hub")
    check_sums(made)
    shutil.move(made, hub / "ORG" / "gss")
    monai.bundle.download("gss", bundle_dir=tmp_path / "placed", source="huggingface_hub", repo="ORG/gss")
    placed = tmp_path / "placed" / "gss"
    check_sums(placed)
    config = ConfigParser()
    config.read_config(str(placed / "configs" / "inference.json"))
    config["bundle_root"] = str(placed)
    network = load_weights(config.get_parsed_content("network_def"), config.get_parsed_content("ckpt_path"))
    assert all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def test_a_damaged_download_is_noticed(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_format", lambda folder: None)
    shutil.move(make_zoo_folder(ROOT / "bundles" / "gss", tmp_path / "hub"), hub / "ORG" / "gss")
    with (hub / "ORG" / "gss" / "models" / "model.pt").open("r+b") as file:
        file.write(b"x")
    monai.bundle.download("gss", bundle_dir=tmp_path / "placed", source="huggingface_hub", repo="ORG/gss")
    with pytest.raises(subprocess.CalledProcessError):
        check_sums(tmp_path / "placed" / "gss")


@pytest.mark.slow  # fresh processes that import everything
def test_from_the_guide_to_a_segmentation(hub, tmp_path, phantom_dir):
    """The commands of the guide publish a bundle and download it; that of its README.md segments a case with it."""
    case = sorted(path for path in phantom_dir.iterdir() if path.is_dir())[-1]
    section = (ROOT / "docs" / "share.md").read_text().split("## Publish on the Hugging Face Hub")[1].split("\n## ")[0]
    script = "\n".join(re.findall(r"^```\n(.*?)^```$", section, flags=re.M | re.S))
    places = {"DIR": tmp_path / "placed", "OUT": tmp_path / "out", "STUDY": case, "dist": tmp_path / "dist"}
    for place, value in places.items():
        script = re.sub(rf"(?<![\w/]){place}\b", str(value), script)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    programs = f'python() {{ "{sys.executable}" "$@"; }}; mmb() {{ python -m mmb "$@"; }}'
    command = ["bash", "-euc", f"{programs}\n{script}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert nib.load(tmp_path / "out" / "label.nii.gz").shape == nib.load(case / f"{case.name}_flair.nii.gz").shape
    (placed,) = (tmp_path / "placed").iterdir()
    check_sums(placed)
    (line,) = [line for line in (placed / "README.md").read_text().splitlines() if "bundle run" in line]
    words = line.replace("CASE", str(case)).replace("OUT", str(tmp_path / "alone")).split()
    done = python(*words[1:], cwd=placed)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "alone" / case.name / f"{case.name}_seg.nii.gz").is_file()
    assert str(placed) in done.stderr + done.stdout  # the messages on shipped weights contain their path
