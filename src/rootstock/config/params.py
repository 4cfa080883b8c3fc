"""All sections together, for whoever checks a whole configuration; a stage reads its own section alone."""

from pydantic import model_validator

from rootstock.config.evaluate import Evaluate
from rootstock.config.fetch import Fetch
from rootstock.config.finetune import Finetune
from rootstock.config.manifest import Manifest
from rootstock.config.pretrain import Pretrain
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

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        for name in self.replicas.strategies:
            if name not in self.finetune:
                raise ValueError(f"replicas.strategies: {name!r} is no section of finetune: {sorted(self.finetune)}")
        if self.select.view not in self.evaluate.views:
            raise ValueError(f"select.view: {self.select.view!r} is not among evaluate.views {self.evaluate.views}")
        return self
