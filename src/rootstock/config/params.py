"""All sections together, for whoever checks a whole configuration; a stage reads its own section alone."""

from pydantic import model_validator

from rootstock.config.evaluate import Evaluate
from rootstock.config.fetch import Fetch
from rootstock.config.finetune import Finetune
from rootstock.config.manifest import Manifest
from rootstock.config.model import SMALLEST_ALEXNET
from rootstock.config.pretrain import Pretrain
from rootstock.config.promote import Promote
from rootstock.config.replicas import Replicas
from rootstock.config.report import Report
from rootstock.config.section import Section
from rootstock.config.select import Select
from rootstock.config.shards import Shards
from rootstock.config.stats import Stats


class FetchBoth(Section):
    """What to fetch for each role."""

    source: Fetch
    target: Fetch


class ManifestBoth(Section):
    """How to list each collection."""

    source: Manifest
    target: Manifest


class StatsBoth(Section):
    """The geometry of each collection's statistics."""

    source: Stats
    target: Stats


class ShardsBoth(Section):
    """How to shard each collection."""

    source: Shards
    target: Shards


class Params(Section):
    """All of params.yaml."""

    fetch: FetchBoth
    manifest: ManifestBoth
    stats: StatsBoth
    shards: ShardsBoth
    pretrain: Pretrain
    finetune: dict[str, Finetune]
    replicas: Replicas
    evaluate: Evaluate
    select: Select
    report: Report
    promote: Promote

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        for name in self.replicas.strategies:
            if name not in self.finetune:
                raise ValueError(f"replicas.strategies: {name!r} is no section of finetune: {sorted(self.finetune)}")
        if self.select.view not in self.evaluate.views:
            raise ValueError(f"select.view: {self.select.view!r} is not among evaluate.views {self.evaluate.views}")
        return self

    @model_validator(mode="after")
    def _replicas_can_be_judged(self) -> "Params":
        splits = {name: self.finetune[name].splits for name in self.replicas.strategies if name in self.finetune}
        if len({tuple(value) for value in splits.values()}) > 1:
            raise ValueError(f"finetune.*.splits: {splits}; wanted the same for all, or val means different images")
        if any("val" in value for value in splits.values()) and not 0 < self.manifest.target.gate_fraction < 1:
            raise ValueError(
                f"manifest.target.gate_fraction: {self.manifest.target.gate_fraction}; wanted between 0 and 1: "
                "training on val leaves only its gate images to validate on"
            )
        return self

    @model_validator(mode="after")
    def _network_fits(self) -> "Params":
        image_size, arch = self.pretrain.image_size, self.pretrain.arch
        if arch.name == "alexnet":
            if image_size < SMALLEST_ALEXNET:
                raise ValueError(f"pretrain.image_size: {image_size}; wanted at least {SMALLEST_ALEXNET} for alexnet")
            return self
        trainings = {"pretrain": self.pretrain.training}
        # a frozen backbone normalises by what it learned, whatever the microbatch
        trainings |= {f"finetune.{name}": one.training for name, one in self.finetune.items() if one.start != "linear"}
        for name, training in trainings.items():
            if training.microbatch_size < 2:
                raise ValueError(f"{name}.training.microbatch_size: 1; wanted at least 2 for batch normalisation")
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> "Params":
        for dataset in type(self.fetch).model_fields:
            collection, fraction = getattr(self.fetch, dataset).root, getattr(self.manifest, dataset).val_fraction
            found = f"manifest.{dataset}.val_fraction: {'null' if fraction is None else fraction}"
            kind = getattr(collection, "layout", collection.collection)
            if collection.has_val and fraction is not None:
                raise ValueError(f"{found}; wanted null for {kind}, which has a val split without it")
            if not collection.has_val and not fraction:
                raise ValueError(f"{found}; wanted a fraction above 0 for {kind}, whose val is a slice of train")
        return self
