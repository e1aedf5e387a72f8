"""``python -m label.server``: the collection's bundles for 3D Slicer and OHIF, by MONAI Label's interface."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import fire
import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from common.cohorts import generate_phantom
from label.main import App
from label.web import web

LOCAL = ["127.0.0.1", "localhost"]


def serve(
    studies: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    output_dir: str = "label_output",
    **conf: object,
) -> None:
    """Serve until stopped.

    Args:
        studies: folder with a subfolder for each study, or URL of a DICOMweb archive, whose user and password are taken
            from MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD. By default a few phantom subjects and
            the weights that know them; all that is of these is in ``output_dir``'s folder ``demo``.
        host: address to listen on. There is no log-in: whoever reaches it can see all studies.
        port: to listen on.
        output_dir: where trainings and adopted weights go.
        conf: further settings, see `label.main.App`.

    Raises:
        OSError: a folder is not there or cannot be written.
        ValueError: a bundle or its weights cannot be used, or a setting is not known.
    """
    if os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true", "yes", "on"):
        raise ValueError("MONAI_LABEL_AUTH_ENABLE: there is no log-in here; put a web server with one in front.")
    if studies is None:
        output_dir = str(Path(output_dir, "demo"))
        studies = str(generate_phantom(Path(output_dir, "phantom"), 3))
        conf = {"recipe": "phantom", **conf}
    remote = studies.startswith(("http://", "https://"))
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn passes it on when it has ended; then clean up
    with _private_folder():
        app = App(app_dir=str(Path(__file__).parent), studies=studies, conf={"output": output_dir} | _texts(conf))
        try:
            api = web(app, studies.rstrip("/") if remote else None, (user, password) if user else None)
            if host in LOCAL:  # a page elsewhere cannot take this server's name
                api.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)
            shown = f"http://{host}:{port}/" + ("ohif/" if remote else "")
            print(
                f"Serving {', '.join(app.info()['models'])} at {shown} Research only, not for clinical use.", flush=True
            )
            uvicorn.run(
                api,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        finally:
            app.close()


def _texts(conf: Mapping[str, object]) -> dict[str, str]:
    """Return settings as they were typed: Fire makes a tuple of what has commas."""
    return {key: ",".join(map(str, value)) if isinstance(value, tuple) else str(value) for key, value in conf.items()}


@contextmanager
def _private_folder() -> Iterator[None]:
    """Let all temporary files be in one folder that only this user can read, and that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="label-") as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = None


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
