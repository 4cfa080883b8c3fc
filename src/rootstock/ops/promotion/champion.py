"""A champion's folder: packed from a challenger, put into place, held by DVC, brought back by its hash."""

import shutil
import subprocess
import sys
from pathlib import Path

from rootstock import layout
from rootstock.config.load import parse_yaml
from rootstock.config.section import parse
from rootstock.data.shard_set import INDEX_NAME
from rootstock.evaluation.serving import Serving
from rootstock.models import bundle
from rootstock.ops import fingerprint
from rootstock.schema import promotion
from rootstock.schema.contract import atomic, read_json, read_table, write_json
from rootstock.schema.shards import INDEX

SERVING, TRAINED_ON = "serving.json", "trained_on.parquet"


class ChampionError(ValueError):
    """A champion that cannot be put into place; the message says what DVC said and what to do."""


class MissingError(ChampionError):
    """A champion whose files are nowhere to be had."""


def trained_sums(shards: Path, splits: list[str]) -> set[str]:
    """Return the sha256 of every image that a model trained on these splits has seen."""
    index = read_table(shards / INDEX_NAME, INDEX, ["split", "gate", "sha256"])
    # only val images are gate images: they stay out where val is trained on
    return set(index["sha256"][index["split"].isin(splits) & ~index["gate"]])


def pack(*, model: Path, model_hash: str, shards: Path, serving: Serving) -> str:
    """Copy a challenger's bundle aside, with how it is served and what it was trained on.

    Args:
        model: its folder in models/finetune.
        model_hash: of that folder when it was judged.
        shards: what it was trained on.

    Returns:
        The hash of the packed folder, in DVC's form, by which `place` finds it.

    Raises:
        ChampionError: the folder is not the one that was judged.
    """
    packing = _packed("packing")
    shutil.rmtree(packing, ignore_errors=True)
    packing.mkdir(parents=True)
    for name in (bundle.WEIGHTS, bundle.MODEL):
        shutil.copyfile(model / name, packing / name)
    found = fingerprint.dvc_hash(packing)
    if found != model_hash:  # judging takes seconds, in which another `dvc repro` may write
        raise ChampionError(f"{model}: found hash {found}, wanted {model_hash}, which was judged; run this again")
    write_json(packing / SERVING, serving.model_dump())
    splits = bundle.read_facts(packing)["trained_on"]["splits"]
    promotion.write_trained_on(packing / TRAINED_ON, trained_sums(shards, splits))
    bundle_hash = fingerprint.dvc_hash(packing)
    shutil.rmtree(_packed(bundle_hash), ignore_errors=True)
    packing.rename(_packed(bundle_hash))
    return bundle_hash


def place(model: str, bundle_hash: str) -> None:
    """Make a model's champion folder, and DVC's hold on it, those of a hash; nothing is done where they are.

    The folder comes from what `pack` laid aside, else from DVC's cache, else from DVC's remote.

    Raises:
        MissingError: it is in none of them.
        ChampionError: DVC refused.
    """
    folder = layout.champion(model)
    if _hash(folder) != bundle_hash:
        if _hash(_packed(bundle_hash)) == bundle_hash:
            _replace(folder, _packed(bundle_hash))
        else:
            _restore(folder, bundle_hash)
    if _held(folder) != bundle_hash:
        _pointer(folder).unlink(missing_ok=True)  # `dvc add` would keep what it knows of, without the size
        problem = _dvc("add", "--quiet", str(folder))
        if problem:
            raise ChampionError(f"{folder}: dvc add failed; run `rootstock promote` again to go on: {problem}")


def forget_packed() -> None:
    """Remove what `pack` laid aside."""
    shutil.rmtree(_packed("any").parent, ignore_errors=True)


def read_serving(folder: Path) -> Serving:
    """Return how a champion is served.

    Raises:
        ValueError: its serving.json is missing or breaks its contract.
    """
    path = folder / SERVING
    if not path.is_file():
        raise ChampionError(f"{path} is missing; `dvc checkout {folder}.dvc` brings it back")
    return parse(Serving, read_json(path), where=str(path))


def _packed(name: str) -> Path:
    return layout.state() / "promotion" / "packed" / name


def _hash(folder: Path) -> str | None:
    return fingerprint.dvc_hash(folder) if folder.is_dir() else None


def _pointer(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.dvc")


def _held(folder: Path) -> str | None:
    """Return the hash in DVC's file beside the folder, where `dvc add` has written it."""
    pointer = _pointer(folder)
    if not pointer.is_file():
        return None
    out = parse_yaml(pointer.read_text(), where=str(pointer))["outs"][0]
    return out["md5"] if "size" in out else None  # without its size it is what `_restore` wrote


def _replace(folder: Path, packed: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    copy = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(packed, copy)
    # DVC may have linked the former's files to its cache: they are removed, never written to
    shutil.rmtree(folder, ignore_errors=True)
    copy.rename(folder)


def _restore(folder: Path, bundle_hash: str) -> None:
    pointer = _pointer(folder)
    with atomic(pointer) as temporary:
        temporary.write_text(f"outs:\n- md5: {bundle_hash}\n  hash: md5\n  path: {folder.name}\n")
    problems = []
    for command in ("checkout", "pull"):
        problem = _dvc(command, "--force", "--quiet", str(pointer))
        if problem is None and _hash(folder) == bundle_hash:
            return
        problems.append(f"  dvc {command}: {problem or 'brought other files'}")
    raise MissingError(
        f"{folder}: the champion of hash {bundle_hash} is neither here, nor in DVC's cache, nor in its remote; "
        "`dvc push` where it was promoted, then run this again\n" + "\n".join(problems)
    )


def _dvc(*arguments: str) -> str | None:
    """Run DVC as a process of its own; return what it said where it failed."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip() or f"ended with status {done.returncode}")
