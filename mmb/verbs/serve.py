import logging
import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from mmb.errors import silence_libraries
from mmb.extras import required


def serve(
    studies: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: str = "",
    trusted_network: bool = False,
    token: str | None = None,
    output_dir: str = "label_output",
    models: str | None = None,
    recipe: str | None = None,
    device: str | None = None,
    send: str | None = None,
    site: str | None = None,
    **settings: str,
) -> None:
    """Serve the bundles on a page, and to 3D Slicer as MONAI Label does, until stopped.

    Raises OSError if a folder does not exist or cannot be written; ValueError if a bundle or its weights cannot be
    used, or an option is unknown.

    Args:
        studies: folder with a subfolder for each study. The default is a demo in ``output_dir``: the patient of
            ``mmb example``, or for the recipe ``phantom`` three synthetic ones.
        host: address to listen on. Whoever reaches it and knows the token can see all studies.
        trusted_network: everyone who reaches another host than this machine is trusted not to keep others out.
        port: port to listen on.
        names: further host names by which browsers reach the server, separated by commas, such as that of a web server
            in front of it. localhost, this machine's name and its addresses are known. Other names are refused.
        token: first part of every path, at least 16 letters and digits, without which requests are refused. The
            default is MONAI_LABEL_TOKEN of the environment or, if that is not set, a new random one; the address with
            it is printed. ``none`` asks for none, and is refused unless the host is a loopback address.
        output_dir: folder of the demo.
        models: names or folders of bundles, or folders of trained nnU-Nets, separated by commas. The default is all
            bundles, for the recipe ``phantom`` those with weights trained on the phantom.
        recipe: recipe of all models that have none of their own; by default the settings of inference.json. The weights
            of ``phantom`` are for synthetic images, not for patients.
        device: device such as cpu or cuda:1; by default a GPU if there is one.
        send: URL of a DICOMweb archive in which the DICOM results of ``POST /segment`` are stored, with the user and
            password in MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD. By default they are not stored.
        site: a site's table, as for ``mmb predict``; it is read once, at the start.
        settings: ``<model>.recipe`` and ``<model>.ckpt_path``, the recipe and the weights of one model.
    """
    with required("clinic", "This is the server"):
        import uvicorn

        from common.cohorts import generate_phantom
        from common.io.bundle import bundle_names, bundle_root
        from common.io.files import require_writable
        from common.io.settings import check_number
        from mmb.clinic.examples.patient import CASE, IMAGES, write_example
        from mmb.clinic.options import Options
        from mmb.clinic.recognise.site import read_site
        from mmb.server.api import create_api
        from mmb.server.app import App
        from mmb.server.archive import is_url
        from mmb.server.guard import chosen_token, is_loopback
        from mmb.server.limits import CONNECTIONS
        from mmb.server.temporary import own_temporary_folder
        from mmb.server.worker import prepare
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s", force=True)
    logging.getLogger("label").setLevel(logging.INFO)
    silence_libraries()
    if os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true", "yes", "on"):
        raise ValueError("MONAI_LABEL_AUTH_ENABLE: this server has no log-in; put a web server with one in front.")
    token = chosen_token(token or os.environ.get("MONAI_LABEL_TOKEN") or None, host)
    if not is_loopback(host) and not trusted_network:
        raise ValueError(
            f"--host {host}: other machines could keep everyone out by open connections. Put a web server in front and "
            "leave --host out (docs/monai_label.md), or say --trusted_network if you trust all who reach it."
        )
    check_number("--port", port, 0, 65535)
    file = Path("models", "phantom.pt" if recipe == "phantom" else "model.pt")
    served = [name for name in bundle_names() if Path(bundle_root(name), file).is_file()]  # not all, if installed
    served = sorted(served, key=lambda name: name != Options.bundle) if models is None else _words(models)
    if studies is None and recipe == "phantom":
        studies = str(generate_phantom(Path(require_writable(output_dir), "phantom"), 3))
    elif studies is None:
        patient = Path(require_writable(output_dir), "example", CASE)
        if not patient.is_dir():
            write_example(patient, True, [*IMAGES])
        studies = str(patient.parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn raises it again after its end; then clean up
    if send is not None and not is_url(send):
        raise ValueError(f"--send {send}: expected the URL of a DICOMweb archive.")
    table = None if site is None else read_site(site)
    prepare(["mmb.server.app"])
    with own_temporary_folder(), closing(App(studies, served, recipe, device, settings, send, table)) as app:
        api = create_api(app, _words(names), token)
        address = f"http://{host}:{port}/{token and f'{token}/'}"
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "ws": "none"}
        server = uvicorn.Server(uvicorn.Config(
            api, host, port, timeout_graceful_shutdown=5, limit_concurrency=CONNECTIONS, **quiet
        ))  # fmt: skip
        socket = server.config.bind_socket()
        socket.listen()  # whoever reads the address may connect to it at once
        print(f"Serving {', '.join(app.models)}. Research only, not for clinical use.", *app.warnings, sep="\n")
        print(f"Open {address} in a browser. 3D Slicer can use the same address (not tested).", flush=True)
        server.run([socket])


def _words(text: str) -> list[str]:
    """Return the entries of a comma-separated option."""
    return [word for word in map(str.strip, text.split(",")) if word]
