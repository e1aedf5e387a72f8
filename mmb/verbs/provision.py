def provision(plan: str, output_dir: str, server: str, admin: str, port: int = 8002) -> None:
    """Make the startup kits of a federation: keys, certificates and settings of its server, sites and administrator.

    Args:
        plan: a JSON file with the sites; see docs/many_machines.md.
        output_dir: the folder to write.
        server: host name by which the sites reach the server.
        admin: e-mail address of the administrator, who may submit jobs.
        port: port of the server.
    """
    from mmb.experiments.federation.plan import read_plan
    from mmb.experiments.federation.provision import provision as make

    print(make(read_plan(plan), output_dir, server, port, admin))
