"""The sections of statistics and shards name what is wrong."""

import pytest

from rootstock.config.section import ParamsError, parse
from rootstock.config.shards import Shards
from rootstock.config.stats import Stats

STATS = {"short_side": 256, "crop_size": 224}
SHARDS = {"short_side": None, "quality": 90, "max_shard_bytes": 10**8, "seed": 0}


@pytest.mark.parametrize(("model", "value"), [(Stats, STATS), (Shards, SHARDS), (Shards, SHARDS | {"short_side": 256})])
def test_a_whole_section_is_read(model, value):
    assert parse(model, value, where="p").model_dump() == value


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (Stats, STATS | {"crop_size": 257}, "p: .*crop_size 257 > short_side 256"),
        (Stats, STATS | {"crop_size": 0}, "p.crop_size: 0 is not allowed"),
        (Stats, {"short_side": 256}, "p.crop_size: missing"),
        (Shards, SHARDS | {"quality": 101}, "p.quality: 101 is not allowed: .*100"),
        (Shards, SHARDS | {"quality": "90"}, "p.quality: '90' is not allowed"),
        (Shards, SHARDS | {"short_side": 0}, "p.short_side: 0 is not allowed"),
        (Shards, SHARDS | {"max_shard_bytes": 100}, "p.max_shard_bytes: 100 is not allowed"),
        (Shards, SHARDS | {"seed": -1}, "p.seed: -1 is not allowed"),
        (Shards, SHARDS | {"qualty": 90}, "p.qualty: unknown key .*did you mean quality"),
        (Shards, {key: SHARDS[key] for key in ("quality", "max_shard_bytes", "seed")}, "p.short_side: missing"),
    ],
)
def test_a_wrong_value_is_named(model, value, message):
    with pytest.raises(ParamsError, match=message):
        parse(model, value, where="p")
