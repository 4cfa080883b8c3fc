"""MLflow's pages over this project's runs, on this machine only."""

import os
import socket
import sys
from pathlib import Path

from rootstock.ops.store import SETTINGS, SQLITE, tracking_uri

HOST = "127.0.0.1"


def serve(project: Path, *, port: int) -> None:
    """Replace this process by MLflow's server; return only where the store is a server with its own pages.

    Args:
        port: of 127.0.0.1, 1 to 65535.

    Raises:
        FileNotFoundError: nothing has been tracked yet.
        ValueError: the port is taken.
    """
    uri = tracking_uri(project)
    if uri.startswith(("http://", "https://")):
        print("$MLFLOW_TRACKING_URI names a server: open its address in a browser")
        return
    store = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not store.is_file():
        raise FileNotFoundError(f"{store} is missing: nothing has been tracked yet; `make repro` does so")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); make ui PORT={port + 1}"
            ) from None
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    print(f"http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
    options = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *options])
