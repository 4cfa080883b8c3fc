"""MLflow's pages over this project's runs, on this machine only."""

import json
import os
import socket
import sys
from pathlib import Path

from rootstock.ops import tracking
from rootstock.ops.store import SETTINGS, SQLITE, Store, tracking_uri, translated

HOST = "127.0.0.1"
VIEW = "rootstock"  # a view that MLflow's pages share by this name, in the form that their own "Share" stores (3.17.2)
COLUMNS = (
    "attributes.`Created`",
    "attributes.`Duration`",
    "metrics.`val_top1`",
    "metrics.`val_loss`",
    "params.`training.optim.lr`",
    "params.`training.epochs`",
    "tags.`data`",
)
SHOWN = {
    "searchFilter": "tags.stage = 'finetune'",
    "orderByKey": "tags.`dvc.experiment`",
    "orderByAsc": True,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": COLUMNS,
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "compareRunCharts": None,
    # one row for the seeds of a strategy in an experiment, with their mean
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "group"}]},
}


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
    tracking.reconcile(store=project)  # the pages are to show the truth: nothing unsent, no dead run RUNNING
    opened = Store(project)
    with translated():
        opened.client.set_experiment_tag(opened.experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(SHOWN))
    runs = f"http://{HOST}:{port}/#/experiments/{opened.experiment}/runs?workflowType=machine_learning"
    print(f"{runs}&viewStateShareKey={VIEW}  (Ctrl-C ends it)", flush=True)
    options = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *options])
