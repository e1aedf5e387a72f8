"""Conversion of a plan into a job of NVIDIA FLARE, which is simulated or submitted to a server."""

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nvflare.app_common.app_constant import DefaultCheckpointFileName
from nvflare.app_common.executors.client_api_executor import ClientAPIExecutor, ExecutionMode
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_opt.pt.recipes import FedAvgRecipe
from nvflare.client.config import ExchangeFormat
from nvflare.recipe.sim_env import SimEnv

from common.io.command import unwrapped_errors
from experiments.federation.aggregation import SiteAverage
from experiments.federation.plan import Plan

SCRIPT = Path(__file__).parent / "app" / "script.py"


class PlanRecipe(FedAvgRecipe):
    """NVFlare's FedAvg with a plan's sites, network and aggregation.

    A round asks all connected sites. One answer is enough; sites that fail are left out. With ``process_per_round`` a
    site trains in a new process for each round: if that is killed or hangs, the site continues in the next round; if a
    process for all rounds dies, NVFlare ends the whole job.
    """

    def __init__(self, plan: Plan, process_per_round: bool) -> None:
        with unwrapped_errors():
            plan.network()  # settings that no network can have are refused here, not by every site
        self._plan, self._process_per_round, self._expected = plan, process_per_round, plan.identity()
        super().__init__(
            name=plan.name,
            model={
                "class_path": "experiments.federation.plan.PlannedNetwork",
                "args": {"plan": plan.model_dump_json(), "expected": self._expected},
            },
            initial_ckpt=plan.init_from,
            min_clients=1,
            num_rounds=plan.rounds - plan.start_round,
            train_script=str(SCRIPT),
            aggregator=SiteAverage(self._expected, plan.parts()),
            key_metric="val_mean_dice",
        )

    def _create_controller(self, **kwargs: Any) -> FedAvg:
        controller = super()._create_controller(**kwargs)
        controller.num_clients, controller.start_round = len(self._plan.sites), self._plan.start_round
        return controller

    def _get_controller_kwargs(self) -> dict[str, Any]:
        return {"ignore_result_error": True}

    def _prepare_client_apps(self) -> None:
        process = {"execution_mode": ExecutionMode.IN_PROCESS, "task_script_path": SCRIPT.name}
        if self._process_per_round:
            process = {
                "execution_mode": ExecutionMode.EXTERNAL_PROCESS,
                "command": ["python3", "-u", f"custom/{SCRIPT.name}"],
                "launch_once": False,
                "result_wait_timeout": 3600.0 * self._plan.round_hours,
            }
        self._files = TemporaryDirectory()
        for site in self._plan.sites:
            self._job.to(ClientAPIExecutor(params_exchange_format=ExchangeFormat.PYTORCH, **process), site)
            self._job.to({"max_runner_sync_timeout": 600.0}, site)  # seconds; NVFlare's 60 fail on a busy machine
            folder = Path(self._files.name, site)
            folder.mkdir()
            shutil.copy(SCRIPT, folder)
            told = {"plan": self._plan.told(site), "expected": self._expected}
            (folder / "plan.txt").write_text(json.dumps(told, indent=4) + "\n")  # NVFlare rewrites JSON files
            self._job.to(str(folder), site)  # NVFlare keeps the path of a single file below an entry of sys.path


def write_job(plan: Plan, folder: str | os.PathLike) -> Path:
    """Write a plan as the job folder ``folder/<name of the plan>``, for ``nvflare job submit``; return its path.

    An older job of the same name is replaced, anything else of that name refused.
    """
    recipe, job = PlanRecipe(plan, process_per_round=True), Path(folder).resolve() / plan.name
    _require_own(job, "meta.json")
    job.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.parent) as made:
        recipe.export(made)
        for copied in [*Path(made).glob("*/app_*/custom/common"), *Path(made).glob("*/app_*/custom/experiments")]:
            shutil.rmtree(copied)  # NVFlare adds copies of our sources, but all sites run what they have installed
        if job.exists():
            shutil.rmtree(job)
        os.replace(Path(made, plan.name), job)
    return job


def simulate(plan: Plan, folder: str | os.PathLike) -> Path:
    """Run a plan on this machine, with a process for each site, in ``folder/simulation/<name of the plan>``.

    An older simulation is replaced, anything else of that name refused. Returns the server's weights after the last
    round, for inference; a job that failed is a RuntimeError, and its log is in the server's folder.
    """
    workspace = Path(folder).resolve() / "simulation"
    _require_own(workspace / plan.name, "server")
    PlanRecipe(plan, process_per_round=False).run(SimEnv(clients=list(plan.sites), workspace_root=str(workspace)))
    return workspace / plan.name / "server" / "simulate_job" / "app_server" / DefaultCheckpointFileName.GLOBAL_MODEL


def _require_own(folder: Path, mark: str) -> None:
    """Refuse to replace a folder that this module did not write, that is, one that has files but no ``mark``."""
    foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / mark).exists()
    if foreign or folder.is_symlink() or folder.is_file():
        raise FileExistsError(f"{folder}: was not written by `federate` (no {mark}) and was not replaced.")
