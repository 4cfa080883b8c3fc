"""What the doctor checks of MLflow's store and registry: read from the SQLite file alone, without opening MLflow.

Opening a store through MLflow makes it where it is missing and takes seconds; a look must do neither.
"""

import importlib.util
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from rootstock import layout
from rootstock.ops import process
from rootstock.ops.doctor.finding import FAIL, OK, WARN, Finding
from rootstock.ops.locks import is_held
from rootstock.ops.store import HEARTBEAT, PROCESS, SQLITE, STALE_SECONDS, tracking_uri
from rootstock.schema import promotion

SECONDS_TO_OPEN = 2.0
LARGE_BYTES = 2e8  # a check of every page of a larger file takes too long
REVISION = re.compile(r"""^(down_)?revision(?::[^=]*)? *= *["'](\w+)["']""", re.MULTILINE)
RUNNING = """
    SELECT runs.run_uuid, runs.name, process.value, heartbeat.value FROM runs
    JOIN tags AS process ON process.run_uuid = runs.run_uuid AND process.key = ?
    JOIN tags AS heartbeat ON heartbeat.run_uuid = runs.run_uuid AND heartbeat.key = ?
    WHERE runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
"""


def store() -> Iterator[Finding]:
    """Whether MLflow's store is whole, of this MLflow's schema, writable, and tells the truth about its runs."""
    uri = tracking_uri(layout.project())
    if not uri.startswith(SQLITE):  # an address may hold a password
        yield Finding("store", "store", OK, "MLFLOW_TRACKING_URI names another store, which is not asked here")
        return
    path = Path(uri.removeprefix(SQLITE))
    if not path.is_file():
        yield Finding("store", "store", OK, f"{path.name}: nothing is tracked yet")
        return
    try:
        with closing(_open(path)) as database:
            findings = [*_schema(path, database), *_runs(database), *_places(database)]
    except sqlite3.Error as error:
        text = f"{path} cannot be read: {error}"
        remedy = f"mv {path} {path}.broken    (a new one is made; results are in reports/, curves in reports/history)"
        yield Finding("store", "store", FAIL, text, remedy)
        return
    yield from findings
    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        text = f"{path} cannot be written: training goes on, its runs wait in .rootstock/runs"
        yield Finding("store", "writable", FAIL, text, f"chmod u+w {path.parent} {path}, or look at its owner")


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=SECONDS_TO_OPEN)


def _schema(path: Path, database: sqlite3.Connection) -> Iterator[Finding]:
    if path.stat().st_size < LARGE_BYTES:
        problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem.replace("\n", " "))
    (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    newest, known = _schemas()
    if found == newest or newest is None:
        yield Finding("store", "schema", OK, f"{path.name} is whole and of this MLflow's schema")
    elif found in known:
        text = f"{path.name} is of an older MLflow's schema ({found}, wanted {newest})"
        remedy = f"cp {path} {path}.bak && mlflow db upgrade {SQLITE}{path}"
        yield Finding("store", "schema", FAIL, text, remedy)
    else:
        text = f"{path.name} is of a newer MLflow's schema ({found}, which this one does not know)"
        yield Finding("store", "schema", FAIL, text, "rm -f .venv/.prepared && make prepare, or use that MLflow")


def _schemas() -> tuple[str | None, set[str]]:
    """The schema that the installed MLflow writes, and all that it can upgrade; read from its files: quick."""
    package = importlib.util.find_spec("mlflow")
    if package is None or not package.submodule_search_locations:
        return None, set()
    folder = Path(package.submodule_search_locations[0]) / "store/db_migrations/versions"
    revisions, followed = set(), set()
    for file in folder.glob("*.py"):
        for is_older, name in REVISION.findall(file.read_text()):
            (followed if is_older else revisions).add(name)
    heads = revisions - followed
    return (heads.pop() if len(heads) == 1 else None), revisions


def _runs(database: sqlite3.Connection) -> Iterator[Finding]:
    counts = database.execute(
        "SELECT status, count(*) FROM runs WHERE lifecycle_stage = 'active' GROUP BY status ORDER BY status"
    ).fetchall()
    text = ", ".join(f"{number} {status}" for status, number in counts) or "none"
    yield Finding("store", "runs", OK, f"runs: {text}")
    running = database.execute(RUNNING, (PROCESS, HEARTBEAT)).fetchall()
    dead = [name for _, name, noted, heartbeat in running if _is_gone(noted, heartbeat)]
    if dead:
        text = f"{len(dead)} runs are RUNNING and their process is gone: {', '.join(dead[:4])}"
        yield Finding(
            "store", "running", WARN, text, "rootstock reconcile    (the next run that starts does it as well)"
        )


def _is_gone(noted: str, heartbeat: str) -> bool:
    lives = process.lives(json.loads(noted))
    return time.time() - int(heartbeat) / 1000 > STALE_SECONDS if lives is None else not lives


def _places(database: sqlite3.Connection) -> Iterator[Finding]:
    """Where artifacts are said to lie: MLflow keeps absolute paths, so a project that moved loses sight of them."""
    rows = database.execute("SELECT DISTINCT artifact_location FROM experiments WHERE name != 'Default'").fetchall()
    inside = layout.project() / "mlartifacts"
    for (location,) in rows:
        parsed = urlparse(location)
        place = Path(unquote(parsed.path))
        if parsed.scheme not in ("", "file") or place == inside:
            continue
        text = f"artifacts are recorded at {place}, and this project is {layout.project()}: it was moved or copied"
        remedy = (
            f"after a move: mkdir -p {place.parent} && ln -s {inside} {place}\n"
            "after a copy: the two share that folder; mv mlflow.db elsewhere to begin a store of its own"
        )
        yield Finding("store", "place", WARN, text, remedy)


def journals() -> Iterator[Finding]:
    """Whether ended runs left something unsent."""
    unsent = [path for path in (layout.state() / "runs").glob("*.jsonl") if not is_held(path)]
    if unsent:
        text = f"{len(unsent)} ended runs left metrics unsent in {layout.state() / 'runs'}"
        yield Finding(
            "store", "journals", WARN, text, "rootstock reconcile    (the next run that starts does it as well)"
        )


def champions() -> Iterator[Finding]:
    """Whether the registry's alias says what the ledger says, which is the truth."""
    from rootstock.ops.promotion.registry import ALIAS, BUNDLE

    lines = promotion.read(layout.PROMOTIONS)
    uri = tracking_uri(layout.project())
    path = Path(uri.removeprefix(SQLITE))
    for model in dict.fromkeys(line["model"] for line in lines):
        champion = promotion.champion(lines, model)
        if champion is None:
            number = sum(line["model"] == model for line in lines)
            yield Finding("registry", model, OK, f"{model}: {number} decisions, no champion yet")
            continue
        folder = layout.champion(model)
        if not folder.is_dir():
            text = f"{model}: the champion {champion['replica']} is not in {folder}"
            yield Finding("registry", "files", WARN, text, f"dvc checkout {folder}.dvc, or dvc pull {folder}.dvc")
        if not uri.startswith(SQLITE) or not path.is_file():
            yield Finding("registry", model, OK, f"{model}: champion {champion['replica']} by the ledger")
            continue
        aliased = _aliased(path, model, alias=ALIAS, tag=BUNDLE)
        if aliased == champion["bundle_hash"]:
            yield Finding("registry", model, OK, f"{model}: ledger and registry agree on {champion['replica']}")
        else:
            found = "no version" if aliased is None else f"the bundle {aliased[:12]}"
            text = f"{model}: alias {ALIAS} is at {found}, by the ledger {champion['bundle_hash'][:12]} is the champion"
            yield Finding("registry", model, WARN, text, "rootstock promote    (it brings the registry to the ledger)")


def _aliased(path: Path, model: str, *, alias: str, tag: str) -> str | None:
    """The hash of the bundle that a registered model's alias points to."""
    query = """
        SELECT tags.value FROM registered_model_aliases AS aliases
        JOIN model_version_tags AS tags ON tags.name = aliases.name AND tags.version = aliases.version
        WHERE aliases.name = ? AND aliases.alias = ? AND tags.key = ?
    """
    try:
        with closing(_open(path)) as database:
            row = database.execute(query, (model, alias, tag)).fetchone()
    except sqlite3.Error:  # said by `store`
        return None
    return row[0] if row else None
