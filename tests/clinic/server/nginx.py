"""nginx with the file of the documentation in front of a server, on a port of its own."""

from __future__ import annotations

import getpass
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from processes import ROOT, free_port

NAME, LOGIN = "label.example.org", ("reader", "a-password")
needs_nginx = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("openssl")), reason="Debian's packages nginx-light and openssl"
)


@contextmanager
def nginx(folder: Path, url: str) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Run nginx in front of a server; yield its port, and what a client needs to trust it."""
    port, certificate, key = free_port(), folder / "label.pem", folder / "label.key"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    made += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", LOGIN[1]], check=True, capture_output=True, text=True)
    (folder / "label.htpasswd").write_text(f"{LOGIN[0]}:{hashed.stdout}")
    text = (ROOT / "docs" / "nginx.conf").read_text()
    for documented, ours in {
        "user www-data": f"user {getpass.getuser()}",
        "listen 443": f"listen 127.0.0.1:{port}",
        "/etc/ssl/": f"{folder}/",
        "/etc/nginx/": f"{folder}/",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/var/log/nginx/": f"{folder}/",
        "http://127.0.0.1:8000": f"http://{urlsplit(url).netloc}",
    }.items():
        assert documented in text
        text = text.replace(documented, ours)
    for place in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):  # Debian's are root's
        text = text.replace("http {", f"http {{ {place}_temp_path {folder}/{place};", 1)
    (folder / "nginx.conf").write_text(re.sub("^pid", "daemon off;\npid", text, flags=re.MULTILINE))
    context = ssl.create_default_context(cafile=certificate)
    with open(folder / "nginx.log", "wb") as log:
        process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-e", folder / "first.log"], stderr=log)
    try:
        until = time.monotonic() + 30
        while not (folder / "nginx.pid").exists():
            assert process.poll() is None, (folder / "nginx.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
        yield port, context
    finally:
        process.terminate()
        process.wait(30)
