"""The parts of NVFlare that are no part of its API, each as `mmb.experiments.federation.rounds` uses it."""

from argparse import Namespace
from inspect import signature

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import RunProcessKey
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.job_scheduler_spec import DispatchInfo
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.server_engine import ServerEngine


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (ServerEngine.check_client_resources, ("job", {"north": {}}, "context")),
        (ServerEngine.start_client_job, ("job", {"north": DispatchInfo("", {}, "token")}, "context")),
        (ServerEngine.sync_clients_from_main_process, ()),
        (ServerEngine.get_client_from_name, ("north",)),
        (FedAvg.get_num_standing_tasks, ()),
    ],
)
def test_functions_take_what_they_are_given(function, given):
    signature(function).bind(None, *given)


def test_what_runs_is_noted_where_it_is_looked_for():
    args = Namespace(set=[], conf=None)
    engine = ServerEngine(server=None, args=args, client_manager=None, snapshot_persistor=None)
    engine.set_job_runner(JobRunner("workspace"), None)
    assert engine.run_processes == engine.job_runner.running_jobs == {}
    assert RunProcessKey.PARTICIPANTS
    assert JobMetaKey.JOB_CLIENTS.value == "job_clients"
    assert EventType.CLIENT_HEARTBEAT_PROCESSED
    signature(FedAvg.send_model).bind(None, timeout=60, task_name="train", targets=["north"], data=None, callback=None)
