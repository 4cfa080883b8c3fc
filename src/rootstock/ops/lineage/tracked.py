"""What MLflow knows of a run or a registered version: read only, a store that is not there is not made."""

from pathlib import Path

from rootstock.ops.store import SQLITE, RefusedError, Store, tracking_uri, translated


def run_tags(project: Path, run_id: str) -> dict[str, str] | None:
    """Return a run's tags; None where there is no store, or no such run in it.

    Raises:
        StoreError: the store cannot be reached.
    """
    if not _exists(project):
        return None
    try:
        with translated():
            return dict(Store(project).client.get_run(run_id).data.tags)
    except RefusedError:
        return None


def version_tags(project: Path, *, model: str, version: str | None, alias: str | None) -> dict[str, str] | None:
    """Return the tags of a version in the registry, by number or alias; None where there is none.

    Raises:
        StoreError: the store cannot be reached.
    """
    if not _exists(project):
        return None
    try:
        with translated():
            client = Store(project).client
            found = (
                client.get_model_version(model, version) if version else client.get_model_version_by_alias(model, alias)
            )
    except RefusedError:
        return None
    return dict(found.tags)


def _exists(project: Path) -> bool:
    uri = tracking_uri(project)
    return not uri.startswith(SQLITE) or Path(uri.removeprefix(SQLITE)).is_file()
