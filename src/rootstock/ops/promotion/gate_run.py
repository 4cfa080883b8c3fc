"""Champion and challenger on the same images: which images may judge them, and what both say of each.

Layout: N images, K present classes, E classes that the champion knows and the collection no longer has.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from rootstock import distributed
from rootstock.config.promote import Promote
from rootstock.config.section import parse
from rootstock.data import loader
from rootstock.data.parallel import num_workers
from rootstock.data.shard_set import INDEX_NAME, ShardSet, read_index_facts
from rootstock.evaluation import compare, gate, inference, metrics, predictions, serving
from rootstock.models import bundle
from rootstock.ops.evaluation_run import AHEAD
from rootstock.ops.promotion.challenger import Challenger
from rootstock.ops.promotion.champion import TRAINED_ON, read_serving, trained_sums
from rootstock.schema import promotion
from rootstock.schema.contract import read_table
from rootstock.schema.shards import INDEX

SPLIT = "val"
BATCH_SIZE = 256  # images decoded and predicted at once
NUM_TIMED = 30  # predictions of one image
MIN_IMAGES_A_CLASS = 5  # on average; with two, a 95 % interval of the mean per class holds in 91 of 100 cases


class GateImages(NamedTuple):
    """The images that judge, and how many were left out because a model has seen them."""

    keys: list[str]  # sorted
    keys_sha256: str  # of all gate images before any is left out: which gate this is
    num_seen_by_champion: int
    num_seen_by_challenger: int


def choose(challenger: Challenger, *, shards: Path, champion: Path | None) -> GateImages:
    """Choose the present val images that neither model has been trained on.

    Only gate images are taken where either was trained on val. Data move between splits, and one image may lie in two:
    what a model has seen is told by its bytes, not by its key.
    """
    splits = set(bundle.read_facts(challenger.model)["trained_on"]["splits"])
    seen_by_challenger = trained_sums(shards, sorted(splits))
    seen_by_champion: set[str] = set()
    if champion is not None:
        splits |= set(bundle.read_facts(champion)["trained_on"]["splits"])
        seen_by_champion = promotion.read_trained_on(champion / TRAINED_ON)
    index = read_table(shards / INDEX_NAME, INDEX, ["key", "split", "gate", "sha256"])
    rows = index[(index["split"] == SPLIT) & (index["gate"] | ("val" not in splits))].sort_values("key")
    by_champion, by_challenger = (rows["sha256"].isin(seen) for seen in (seen_by_champion, seen_by_challenger))
    return GateImages(
        keys=rows["key"][~by_champion & ~by_challenger].tolist(),
        keys_sha256=hashlib.sha256("\n".join(rows["key"]).encode()).hexdigest(),
        num_seen_by_champion=int(by_champion.sum()),
        num_seen_by_challenger=int((by_challenger & ~by_champion).sum()),
    )


def judge(
    challenger: Challenger, images: GateImages, *, shards: Path, champion: Path | None, num_judged_before: int,
    limits: Promote,
) -> gate.Verdict:  # fmt: skip
    """Score both models on the gate's images and decide.

    Args:
        champion: its folder; None where there is none to replace.
        num_judged_before: challengers judged by this gate before.
    """
    frame, facts = predictions.read(challenger.predictions)
    ours = frame[(frame["split"] == SPLIT) & (frame["view"] == challenger.view) & frame["key"].isin(images.keys)]
    counts = {
        "num_seen_by_challenger": images.num_seen_by_challenger,
        "num_seen_by_champion": images.num_seen_by_champion,
    }
    missing = set(images.keys) - set(ours["key"])
    assert not missing, f"{len(missing)} gate images are not in {challenger.predictions}"
    wanted = MIN_IMAGES_A_CLASS * len(facts["class_names"])
    if len(ours) < wanted:
        return _too_few(len(ours), wanted, counts | {"limits": limits.model_dump()})
    with ShardSet(shards, verify="always") as opened:
        pairs, champion_metrics = None, None
        if champion is not None:
            theirs = score(champion, opened, images.keys)
            counts["champion_view"] = theirs["view"].iloc[0]
            theirs["view"] = challenger.view  # each by its own: only the images are the same
            pairs = compare.align(theirs, ours, split=SPLIT, view=challenger.view)
            champion_metrics = metrics.compute(theirs)[SPLIT][challenger.view]
        verdict = gate.judge(
            pairs,
            metrics.compute(ours)[SPLIT][challenger.view],
            champion_metrics=champion_metrics,
            class_names=facts["class_names"],
            latency_ms=_latency_ms(challenger, opened, images.keys, enough_ms=limits.max_latency_ms),
            num_candidates=challenger.num_candidates,
            num_judged_before=num_judged_before,
            limits=limits,
        )
    return verdict._replace(evidence=verdict.evidence | counts)


def score(champion: Path, shards: ShardSet, keys: list[str]) -> pd.DataFrame:
    """Predict present images with a champion in its own view, its classes brought to the present ones by name.

    Returns:
        A predictions table of K + E classes: a present class that the champion does not know has probability 0, and
        those that are gone stand at the end, where no label is: a wrong answer.
    """
    classifier, facts = bundle.load(champion)
    view = read_serving(champion).view
    device = distributed.join().device
    positions = _positions(shards, keys)
    chunks = [positions[start : start + BATCH_SIZE] for start in range(0, len(positions), BATCH_SIZE)]
    resized = loader.resized_images(
        shards, chunks, resize_size=facts["resize_size"], num_threads=num_workers(), ahead=AHEAD
    )
    predicted = inference.predict(
        classifier.to(device),
        resized,
        views=[view],
        image_size=facts["image_size"],
        batch_size=BATCH_SIZE,
        device=device,
        precision="fp32",
    )
    tables = [
        predictions.table(
            split=SPLIT,
            view=view,
            keys=shards.keys[chunk].tolist(),
            labels=shards.labels[chunk],
            probabilities_NK=by_name(probabilities[view], theirs=facts["class_names"], present=shards.class_names),
        )
        for chunk, probabilities in predicted
    ]
    return pd.concat(tables, ignore_index=True)


def by_name(probabilities_NC: np.ndarray, *, theirs: list[str], present: list[str]) -> np.ndarray:
    """Move a model's C classes to the present K by name, classes that are gone behind them: float32 (N, K + E)."""
    names = [*present, *(name for name in theirs if name not in present)]
    moved = np.zeros((len(probabilities_NC), len(names)), np.float32)
    moved[:, [names.index(name) for name in theirs]] = probabilities_NC
    return moved


def _positions(shards: ShardSet, keys: list[str]) -> np.ndarray:
    positions = shards.positions([SPLIT], gate=None)
    return positions[np.isin(shards.keys[positions].astype(str), keys)]


def _latency_ms(challenger: Challenger, shards: ShardSet, keys: list[str], *, enough_ms: float) -> float:
    classifier, facts = bundle.load(challenger.model)
    device = distributed.join().device
    images = [shards.read(int(position)) for position in _positions(shards, keys)[:NUM_TIMED]]
    images *= -(-NUM_TIMED // len(images))
    return serving.latency_ms(
        classifier.to(device),
        images[:NUM_TIMED],
        facts=facts,
        serving=serving_of(challenger, shards.folder),
        device=device,
        enough_ms=enough_ms,
    )


def serving_of(challenger: Challenger, shards: Path) -> serving.Serving:
    """Return how a challenger is judged, and so will be served."""
    facts = read_index_facts(shards / INDEX_NAME)
    return parse(serving.Serving, {"decode": facts["decode"], "view": challenger.view}, where=str(shards / INDEX_NAME))


def _too_few(found: int, wanted: int, evidence: dict) -> gate.Verdict:
    text = (
        f"{found} gate images that neither model was trained on, wanted at least {wanted}, {MIN_IMAGES_A_CLASS} a class"
    )
    return gate.Verdict(False, [gate.Check("images", False, float(found), float(wanted), text)], evidence)
