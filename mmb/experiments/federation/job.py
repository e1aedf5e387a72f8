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
from nvflare.app_opt.pt.job_config.model import PTModel
from nvflare.client.config import ExchangeFormat
from nvflare.job_config.base_fed_job import BaseFedJob
from nvflare.recipe.sim_env import SimEnv
from nvflare.recipe.spec import Recipe

from common.io.errors import unwrapped_errors
from mmb.experiments.federation.plan import Plan

SCRIPT = Path(__file__).parent / "app" / "script.py"
ANSWER_SECONDS = 60  # time in which a site whose training was ended at the limit of a round can say so


class LimitedFedAvg(FedAvg):
    """NVFlare's FedAvg whose rounds end after ``round_seconds``, even if some sites have not answered."""

    def __init__(self, *args: Any, round_seconds: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.round_seconds = round_seconds

    def send_model(self, **task: Any) -> None:
        """Send a round's task to its sites, with the limit."""
        super().send_model(timeout=self.round_seconds, **task)


class PlanRecipe(Recipe):
    """NVFlare's FedAvg with a plan's sites and network.

    A round asks all connected sites. One answer is enough; sites that fail or do not answer in time are left out. With
    ``process_per_round`` a site trains in a new process for each round. If that is killed or hangs, the site continues
    in the next round, whereas NVFlare ends the whole job if a process for all rounds dies.
    """

    def __init__(self, plan: Plan, process_per_round: bool) -> None:
        with unwrapped_errors():
            plan.network()  # settings that no network can have are refused here, not by every site
        expected, seconds = plan.identity(), 3600 * plan.round_hours
        network = {"plan": plan.model_dump_json(), "expected": expected}
        job = BaseFedJob(plan.name, min_clients=1, key_metric="val_mean_dice")
        job.comp_ids |= job.to_server(
            PTModel({"path": "mmb.experiments.federation.plan.PlannedNetwork", "args": network}, plan.init_from),
            id="persistor",
        )
        rounds = LimitedFedAvg(
            num_clients=len(plan.sites),
            num_rounds=plan.rounds - plan.start_round,
            start_round=plan.start_round,
            persistor_id=job.comp_ids["persistor_id"],
            ignore_result_error=True,
            round_seconds=int(seconds) + ANSWER_SECONDS,
        )
        job.to_server(rounds)
        process = {"execution_mode": ExecutionMode.IN_PROCESS, "task_script_path": SCRIPT.name}
        if process_per_round:
            process = {
                "execution_mode": ExecutionMode.EXTERNAL_PROCESS,
                "command": ["python3", "-u", f"custom/{SCRIPT.name}"],
                "launch_once": False,
                "result_wait_timeout": seconds,
            }
        self._files = TemporaryDirectory()
        for site in plan.sites:
            job.to(ClientAPIExecutor(params_exchange_format=ExchangeFormat.PYTORCH, **process), site)
            job.to({"max_runner_sync_timeout": 600.0}, site)  # seconds; NVFlare's 60 fail on a busy machine
            folder = Path(self._files.name, site)
            folder.mkdir()
            shutil.copy(SCRIPT, folder)
            told = {"plan": plan.told(site), "expected": expected}
            (folder / "plan.txt").write_text(json.dumps(told, indent=4) + "\n")  # NVFlare rewrites JSON files
            job.to(str(folder), site)  # NVFlare keeps the path of a single file below an entry of sys.path
        super().__init__(job)


def write_job(plan: Plan, folder: str | os.PathLike) -> Path:
    """Write a plan as the new job folder ``folder/<name of the plan>``, for ``nvflare job submit``; return its path."""
    recipe, job = PlanRecipe(plan, process_per_round=True), Path(folder).resolve() / plan.name
    _require_new(job)
    job.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=job.parent) as made:
        recipe.export(made)
        for copied in [*Path(made).glob("*/app_*/custom/common"), *Path(made).glob("*/app_*/custom/mmb")]:
            shutil.rmtree(copied)  # NVFlare adds copies of our sources, but all sites run what they have installed
        os.replace(Path(made, plan.name), job)
    return job


def simulate(plan: Plan, folder: str | os.PathLike) -> Path:
    """Run a plan on this machine, with a process for each site, in ``folder/simulation/<name of the plan>``.

    The folder must not exist yet. Returns the path of the server's weights after the last round, for inference. Raises
    ValueError, naming the log, if the job failed.
    """
    workspace = Path(folder).resolve() / "simulation"
    _require_new(workspace / plan.name)
    environment = SimEnv(clients=list(plan.sites), workspace_root=str(workspace))
    try:
        PlanRecipe(plan, process_per_round=False).run(environment)
    except RuntimeError as error:
        log = workspace / plan.name / "server" / "simulate_job" / "log.txt"
        raise ValueError(
            f"{log}: the simulation failed; the reason is in this log, and in those of the sites."
        ) from error
    return workspace / plan.name / "server" / "simulate_job" / "app_server" / DefaultCheckpointFileName.GLOBAL_MODEL


def _require_new(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder}: exists already; choose another folder, or delete this one.")
