"""Conversion of a plan into a job of NVIDIA FLARE, which is simulated or submitted to a server."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nvflare.app_common.app_constant import DefaultCheckpointFileName
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_opt.pt.recipes import FedAvgRecipe
from nvflare.recipe.sim_env import SimEnv
from nvflare.recipe.utils import set_per_site_config

from federated.aggregation import SiteAverage
from federated.plan import Plan

SCRIPT = Path(__file__).parent / "app" / "script.py"


class PlanRecipe(FedAvgRecipe):
    """NVFlare's FedAvg with a plan's sites, network and aggregation.

    A round asks all connected sites. One answer is enough; sites that fail are left out.

    Args:
        plan: plan of the federation.
        process_per_round: whether a site trains in a new process for each round. If that process is killed, the site
            continues in the next round; if a process for all rounds dies, NVFlare ends the whole job.
    """

    def __init__(self, plan: Plan, process_per_round: bool) -> None:
        self._plan, expected = plan, plan.identity()
        super().__init__(
            name=plan.name,
            model={
                "class_path": "federated.plan.PlannedNetwork",
                "args": {"plan": plan.to_json(), "expected": expected},
            },
            initial_ckpt=plan.init_from,
            min_clients=1,
            num_rounds=plan.rounds - plan.start_round,
            train_script=SCRIPT.name,
            launch_external_process=process_per_round,
            launch_once=not process_per_round,
            aggregator=SiteAverage(expected, plan.parts()),
            key_metric="val_mean_dice",
        )
        set_per_site_config(self, {site: {} for site in plan.sites})
        self._files = TemporaryDirectory()
        for site in plan.sites:
            told = Path(self._files.name, site, "plan.txt")  # NVFlare rewrites JSON files
            told.parent.mkdir()
            told.write_text(json.dumps({"plan": vars(plan.of_site(site)), "expected": expected}, indent=4) + "\n")
            self.add_client_file(str(told), [site])

    def _create_controller(self, **kwargs: Any) -> FedAvg:
        controller = super()._create_controller(**kwargs)
        controller.num_clients, controller.start_round = len(self._plan.sites), self._plan.start_round
        return controller

    def _get_controller_kwargs(self) -> dict[str, Any]:
        return {"ignore_result_error": True}


def write_job(plan: Plan, folder: str | os.PathLike) -> Path:
    """Write a plan as a job folder, for ``nvflare job submit``.

    Args:
        plan: plan of the federation.
        folder: parent folder; an older job of the same name is replaced.

    Returns:
        The job folder, ``folder/<name of the plan>``.
    """
    job = Path(folder).resolve() / plan.name
    shutil.rmtree(job, ignore_errors=True)
    with chdir(SCRIPT.parent):  # NVFlare uses the script's path literally, here and at the sites
        PlanRecipe(plan, process_per_round=True).export(str(job.parent))
    for copied in [*job.glob("app_*/custom/common"), *job.glob("app_*/custom/federated")]:
        shutil.rmtree(copied)  # NVFlare adds copies of our sources, but all sites run what they have installed
    return job


def simulate(plan: Plan, folder: str | os.PathLike) -> Path:
    """Run a plan on this machine, with a process for each site.

    Args:
        plan: plan of the federation.
        folder: NVFlare's workspace, with a folder for the server and each site.

    Returns:
        The server's weights after the last round, for inference.

    Raises:
        RuntimeError: if the job failed; its log is in the workspace.
    """
    folder = Path(folder).resolve()
    env = SimEnv(clients=list(plan.sites), workspace_root=str(folder))
    with chdir(SCRIPT.parent):
        PlanRecipe(plan, process_per_round=False).run(env)
    return folder / plan.name / "server" / "simulate_job" / "app_server" / DefaultCheckpointFileName.GLOBAL_MODEL
