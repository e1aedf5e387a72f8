"""``python -m label.server``: the collection's bundles for 3D Slicer and OHIF, by MONAI Label's interface."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import fire
import uvicorn

from common.cohorts import generate_phantom
from common.io import require_writable
from common.io.settings import check_number
from label.app import BUNDLES, RECIPE, App
from label.datastore import is_url
from label.endpoints import create_api
from label.temporary import private_folder


def serve(
    studies: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    names: str | Sequence[str] = "",
    output_dir: str = "label_output",
    models: str | Sequence[str] = BUNDLES,
    recipe: str | None = None,
    device: str | None = None,
    **settings: object,
) -> None:
    """Serve until stopped.

    Args:
        studies: folder with a subfolder for each study, or URL of a DICOMweb archive, whose user and password are taken
            from MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD. By default a few phantom subjects and
            the weights that know them; all that is of these is in ``output_dir``'s folder ``demo``.
        host: address to listen on. There is no log-in: whoever reaches it can see all studies.
        port: to listen on.
        names: by which browsers reach it, by commas, beside localhost, this machine's name and addresses; such as that
            of a web server in front. Requests by other names are refused.
        output_dir: where trainings and adopted weights go.
        models: names or folders of bundles, by commas.
        recipe: that the weights of the models were trained with; if not given that of the bundles' own.
        device: such as cpu or cuda:1; if not given a GPU if there is one.
        settings: ``<model>.recipe`` and ``<model>.ckpt_path``, the recipe and the weights of one model.

    Raises:
        OSError: a folder is not there or cannot be written.
        ValueError: a bundle or its weights cannot be used, or an option is not known.
        ImportError: there is no OHIF for an archive.
    """
    if os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true", "yes", "on"):
        raise ValueError("MONAI_LABEL_AUTH_ENABLE: there is no log-in here; put a web server with one in front.")
    check_number("--port", port, 0, 65535)
    studies, recipe, device = (None if value is None else str(value) for value in (studies, recipe, device))
    require_writable(output_dir)
    if studies is None:
        output_dir = str(Path(output_dir, "demo"))
        studies, recipe = str(generate_phantom(Path(output_dir, "phantom"), 3)), recipe or "phantom"
    own = {key: str(value) for key, value in settings.items()}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn passes it on when it has ended; then clean up
    with private_folder():
        app = App(studies, output_dir, _words(models), recipe or RECIPE, device, own)
        try:
            api = create_api(app, studies.rstrip("/") if is_url(studies) else None, _words(names))
            address = f"http://{host}:{port}/" + ("ohif/" if is_url(studies) else "")
            print(f"Serving {', '.join(app.models)} at {address} Research only, not for clinical use.", flush=True)
            quiet = {"log_config": None, "access_log": False, "server_header": False}
            uvicorn.run(api, host=host, port=port, timeout_graceful_shutdown=5, **quiet)
        finally:
            app.close()


def _words(value: object) -> list[str]:
    """Return what an option lists by commas, of which Fire makes a tuple, and of digits a number."""
    listed = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return [word for word in (str(one).strip() for one in listed) if word]


def main() -> None:
    """Serve; what is wrong with settings and files is said in a line."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("label").setLevel(logging.INFO)
    warnings.simplefilter("ignore")  # pydicom's quote what is in a file
    try:
        fire.Fire(serve, name="label.server")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
