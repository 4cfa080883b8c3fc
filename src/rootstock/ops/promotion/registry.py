"""The door to MLflow's Model Registry, which mirrors the ledger: one version a champion, and the alias `champion`.

A version is found again by the hash of its bundle, so nothing is registered twice. MLflow is imported when a
`Registry` is opened; whatever goes wrong inside it surfaces as `StoreError`.
"""

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rootstock.models import bundle
from rootstock.ops.promotion import registered_package
from rootstock.ops.store import Store, tracking_uri, translated

ALIAS = "champion"
VARIABLE = "MLFLOW_TRACKING_URI"
BUNDLE = "rootstock.bundle_hash"  # the tag by which a version, and the model it points to, is found again
MAX_TAG_CHARACTERS = 8000  # MLflow refuses longer ones of a model


class Mirrored(NamedTuple):
    """What the registry had of a champion and what it has now."""

    version: str
    is_new: bool  # the version was registered by this call
    alias_before: str | None  # the version that the alias pointed to


class Registry:
    """An open registry: the tracking store's own."""

    def __init__(self, project: Path) -> None:
        """Open it.

        Raises:
            StoreError: it cannot be reached.
        """
        store = Store(project)
        self._client, self._experiment = store.client, store.experiment
        self._uri = tracking_uri(project)

    def mirror(self, model: str, champion: dict, *, folder: Path, serving: dict, line: dict) -> Mirrored:
        """Make the registry say what the ledger says: the champion has a version, and the alias points to it.

        Args:
            model: the registered name.
            champion: as the ledger has it.
            folder: the champion's bundle, read only where it has no version yet.
            serving: how its images are decoded and viewed.
            line: the ledger's line that promoted it.

        Raises:
            StoreError: the registry cannot be reached, or refuses; calling again completes what was begun.
        """
        with translated(), _quiet(), _as_global(self._uri):
            alias = self._alias(model)
            found = self._client.search_model_versions(f"name = '{model}' and tags.`{BUNDLE}` = '{_hash(champion)}'")
            version = min((str(one.version) for one in found), key=int, default=None)
            is_new = version is None
            if version is None:
                version = str(self._register(model, champion, folder=folder, serving=serving, line=line))
            if alias != version:
                self._client.set_registered_model_alias(model, ALIAS, version)
        return Mirrored(version, is_new, alias)

    def withdraw(self, model: str) -> str | None:
        """Take the alias away from a model that has no champion; return the version that it pointed to."""
        with translated():
            alias = self._alias(model)
            if alias is not None:
                self._client.delete_registered_model_alias(model, ALIAS)
        return alias

    def _alias(self, model: str) -> str | None:
        known = self._client.search_registered_models(f"name = '{model}'")
        version = self._client.get_registered_model(model).aliases.get(ALIAS) if known else None
        return None if version is None else str(version)  # some stores give a number

    def _register(self, model: str, champion: dict, *, folder: Path, serving: dict, line: dict) -> Any:
        tags = _tags(champion, folder=folder, line=line)
        logged = self._logged(model, champion, folder=folder, serving=serving, tags=tags)
        if not self._client.search_registered_models(f"name = '{model}'"):
            self._client.create_registered_model(model, description=_about(folder))
        created = self._client.create_model_version(
            model,
            source=f"models:/{logged.model_id}",
            run_id=logged.source_run_id,
            model_id=logged.model_id,
            tags=tags,
            description=_describe(champion, line),
        )
        return created.version

    def _logged(self, model: str, champion: dict, *, folder: Path, serving: dict, tags: dict[str, str]) -> Any:
        """Find the uploaded model, or upload it; what an interrupted upload left is removed."""
        of_bundle = f"tags.`{BUNDLE}` = '{_hash(champion)}' and name = '{model}'"
        for logged in self._client.search_logged_models([self._experiment], filter_string=of_bundle):
            if logged.status == "READY":
                return logged
            self._client.delete_logged_model(logged.model_id)
        logged = self._client.create_logged_model(
            self._experiment, name=model, source_run_id=self._known_run(champion["run_id"]), tags=tags
        )
        with tempfile.TemporaryDirectory() as temporary:
            registered_package.save(Path(temporary) / "model", folder=folder, serving=serving)
            self._client.log_model_artifacts(logged.model_id, str(Path(temporary) / "model"))
        return self._client.finalize_logged_model(logged.model_id, "READY")

    def _known_run(self, run_id: str | None) -> str | None:
        """Return the run's id where this store has it: a store may be younger than the champion."""
        if run_id is None:
            return None
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(run_id).info.run_id
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _hash(champion: dict) -> str:
    return champion["bundle_hash"]


def _tags(champion: dict, *, folder: Path, line: dict) -> dict[str, str]:
    trained_on = bundle.read_facts(folder)["trained_on"]
    verdict = json.dumps(line["verdict"], sort_keys=True)
    if len(verdict) > MAX_TAG_CHARACTERS:
        verdict = json.dumps({"promoted": line["verdict"]["promoted"], "see": "reports/promotions.jsonl"})
    named = {
        "dvc_hash": champion["dvc_hash"],
        "replica": champion["replica"],
        "run_id": champion["run_id"],
        "git_revision": champion["git_revision"],
        "collection": trained_on["collection"],
        "trained_on": "+".join(trained_on["splits"]),
        "ledger_line": str(line["number"]),
        "decision": verdict,
    }
    return {BUNDLE: _hash(champion), **{f"rootstock.{name}": text for name, text in named.items() if text is not None}}


def _about(folder: Path) -> str:
    facts = bundle.read_facts(folder)
    return (
        f"Image classifier of {facts['num_classes']} classes ({facts['trained_on']['collection']}): image bytes in, "
        f"class and probabilities out. The alias `{ALIAS}` is moved by `rootstock promote` and `rootstock rollback`."
    )


def _describe(champion: dict, line: dict) -> str:
    checks = "\n".join(f"- {check['name']}: {check['text']}" for check in line["verdict"]["checks"])
    data = line["data"]
    return (
        f"{champion['replica']}, promoted {line['time']} on {data['num_images']} images of {data['split']} "
        f"(line {line['number']} of reports/promotions.jsonl):\n\n{checks}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's warnings about its own modules from a person's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _as_global(uri: str) -> Iterator[None]:
    """Make a store MLflow's global one: its SQL registry looks up a version's model there, not in itself."""
    import mlflow

    before, variable = mlflow.get_tracking_uri(), os.environ.get(VARIABLE)
    mlflow.set_tracking_uri(uri)  # it also sets the variable
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop(VARIABLE, None)
        if variable is not None:
            os.environ[VARIABLE] = variable
