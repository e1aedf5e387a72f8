"""Who is who in a federation over a network: keys and certificates of each site, made by NVFlare's own tool."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from federated.plan import Plan

BUILDERS = (
    "workspace.WorkspaceBuilder",
    "static_file.StaticFileBuilder",
    "cert.CertBuilder",
    "signature.SignatureBuilder",
)
ARGUMENTS = {"static_file.StaticFileBuilder": {"config_folder": "config", "scheme": "tcp"}}


def project(plan: Plan, server: str, port: int, admin: str) -> dict:
    """Return NVFlare's description of a plan's participants.

    Sites and server speak TLS, each with a certificate of its own. A site's logs, which can name its cases, stay there.

    Args:
        plan: with the sites.
        server: host name by which the sites reach the server.
        port: the only one that has to be open, at the server.
        admin: mail address of who may submit jobs.
    """
    org = {"org": "federation"}
    sites = [{"name": site, "type": "client"} | org for site in plan.sites]
    return {
        "api_version": 3,
        "name": plan.name,
        "allow_log_streaming": False,  # of all sites; NVFlare 2.9.0 does not see a site's own False
        "participants": [
            {"name": server, "type": "server", "fed_learn_port": port} | org,
            *sites,
            {"name": admin, "type": "admin", "role": "project_admin"} | org,
        ],
        "builders": [{"path": f"nvflare.lighter.impl.{name}", "args": ARGUMENTS.get(name, {})} for name in BUILDERS],
    }


def provision(plan: Plan, folder: str | os.PathLike, server: str, port: int, admin: str) -> Path:
    """Make a startup kit for the server, each site and the administrator, by ``nvflare provision``.

    Made once more in the same folder, for a plan with more sites, the kits have the same root certificate.

    Args:
        plan: with the sites.
        folder: to write in; what is there of an earlier time is kept.
        server: see `project`.
        port: see `project`.
        admin: see `project`.

    Returns:
        The folder with the kits.

    Raises:
        ValueError: NVFlare refused; the message is its.
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
    return made[-1]
