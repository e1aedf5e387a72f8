"""The server's rounds: they end at their time limit, and a restarted site rejoins the same round.

NVIDIA FLARE 2.9 waits for ever for a site whose service was started again, since it does not start a running job there.
To start it, this module needs parts of the server that are not in NVIDIA FLARE's API: ``run_processes``,
``job_runner.running_jobs``, ``check_client_resources``, ``start_client_job`` and ``sync_clients_from_main_process`` of
the engine.
"""

import time
from threading import Thread
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.job_scheduler_spec import DispatchInfo
from nvflare.app_common.workflows.fedavg import FedAvg

LOOKED_EVERY = 10.0  # seconds between two looks at which sites have logged in anew


class LimitedFedAvg(FedAvg):
    """NVFlare's FedAvg whose rounds end after ``round_seconds``, even if some sites have not answered."""

    def __init__(self, *args: Any, round_seconds: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.round_seconds, self._looked = round_seconds, 0.0

    def send_model(self, **task: Any) -> None:
        """Send a round's task to its sites, with the limit."""
        super().send_model(timeout=self.round_seconds, **task)

    def get_num_standing_tasks(self) -> int:
        """Return 1 while a round lasts; in between, admit sites that have logged in again (see `TakeBack`)."""
        if time.monotonic() - self._looked > LOOKED_EVERY:
            self.engine.sync_clients_from_main_process()
            self._looked = time.monotonic()
        return super().get_num_standing_tasks()


class TakeBack(FLComponent):
    """Starts running jobs at a site that has logged in again because its machine or service was restarted."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Compare a site that sends a heartbeat with the sites that running jobs know."""
        if event_type != EventType.CLIENT_HEARTBEAT_PROCESSED:
            return
        engine, name = fl_ctx.get_engine(), fl_ctx.get_peer_context().get_identity_name()
        now = engine.get_client_from_name(name)
        for job_id, process in list(engine.run_processes.items()):
            sites, job = process.get(RunProcessKey.PARTICIPANTS) or {}, engine.job_runner.running_jobs.get(job_id)
            before = [token for token, site in sites.items() if site.name == name]
            if now and job and before and before[0] != now.token:
                sites[now.token] = now
                del sites[before[0]]
                job.meta[JobMetaKey.JOB_CLIENTS] = [site.to_dict() for site in sites.values()]
                self.logger.info(f"{name} has logged in anew; job {job_id} is started there again.")
                Thread(target=self._start, args=(engine, job, name), daemon=True).start()

    def _start(self, engine: Any, job: Any, name: str) -> None:
        """Start a job at a site, which has its files already."""
        with engine.new_context() as fl_ctx:
            _, token = engine.check_client_resources(job, {name: {}}, fl_ctx)[name]  # which reserves them
            for answer in engine.start_client_job(job, {name: DispatchInfo("", {}, token)}, fl_ctx):
                self.logger.info(f"{name} answers: {answer.reply.body if answer.reply else 'nothing'}.")
