import shlex


def federate(plan: str, output_dir: str, simulate: bool = False) -> None:
    """Write a federation of hospitals as a job of NVIDIA FLARE.

    Args:
        plan: a JSON file with a bundle, rounds and sites; see docs/many_machines.md.
        output_dir: parent folder of the job folder, which has the plan's name and must not exist yet.
        simulate: run the federation on this machine instead, in the folder simulation of output_dir.
    """
    from mmb.experiments.federation.plan import read_plan
    from mmb.extras import required

    with required("federated", "A federation runs on NVIDIA FLARE"):
        from mmb.experiments.federation.job import simulate as run
        from mmb.experiments.federation.job import write_job

    read = read_plan(plan)
    if simulate:
        print(f"weights: {run(read, output_dir)}")
    else:
        print(f"nvflare job submit -j {shlex.quote(str(write_job(read, output_dir)))}")
