"""Startup kits for a federation over a network: keys and certificates of each site, made by NVFlare's own tool."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mmb.experiments.federation.plan import Plan

BUILDERS = (
    "workspace.WorkspaceBuilder",
    "static_file.StaticFileBuilder",
    "cert.CertBuilder",
    "signature.SignatureBuilder",
)
ARGUMENTS = {"static_file.StaticFileBuilder": {"config_folder": "config", "scheme": "tcp"}}


def project(plan: Plan, server: str, port: int, admin: str) -> dict:
    """Return NVFlare's description of a plan's participants.

    Sites and server use TLS with their own certificates. A site's logs, which can contain names of cases, stay there.
    See `provision`.
    """
    org = {"org": "federation"}
    sites = [{"name": site, "type": "client"} | org for site in plan.sites]
    return {
        "api_version": 3,
        "name": plan.name,
        "allow_log_streaming": False,  # set for all sites, since NVFlare 2.9.0 ignores False for a single one
        "participants": [
            {"name": server, "type": "server", "fed_learn_port": port} | org,
            *sites,
            {"name": admin, "type": "admin", "role": "project_admin"} | org,
        ],
        "builders": [{"path": f"nvflare.lighter.impl.{name}", "args": ARGUMENTS.get(name, {})} for name in BUILDERS],
    }


def provision(plan: Plan, folder: str | os.PathLike, server: str, port: int, admin: str) -> Path:
    """Make startup kits for server, sites and administrator with ``nvflare provision``; return the folder with them.

    A second run in the same folder, for a plan with more sites, keeps the root certificate. The sites reach the server
    by the host name ``server`` at ``port``; no other port has to be open. ``admin`` is the e-mail address of the
    administrator, who may submit jobs.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / "project.yml"
    description.write_text(json.dumps(project(plan, server, port, admin), indent=4) + "\n")  # JSON is YAML
    words = [sys.executable, "-m", "nvflare.cli", "provision", "-p", str(description), "-w", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True)
    made = sorted((folder / plan.name).glob("prod_*"))
    if done.returncode or not made:
        raise ValueError(f"{description}: NVFlare could not provision: {(done.stderr or done.stdout).strip()}")
    _add_component(made[-1] / server / "local")
    return made[-1]


def _add_component(local: Path) -> None:
    """Let a server readmit restarted sites; see `mmb.experiments.federation.rounds.TakeBack`."""
    resources = json.loads((local / "resources.json.default").read_text())
    resources["components"].append(
        {"id": "take_back", "path": "mmb.experiments.federation.rounds.TakeBack", "args": {}}
    )
    (local / "resources.json").write_text(json.dumps(resources, indent=4) + "\n")
