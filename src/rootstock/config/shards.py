"""The section `shards.<dataset>`: how samples are put into WebDataset tars."""

from typing import Annotated

from pydantic import Field

from rootstock.config.section import NonNegativeInt, PositiveInt, Section


class Shards(Section):
    """Raw bytes, or images shrunk to a short side and encoded again."""

    short_side: PositiveInt | None  # pixels; null keeps every image's own bytes
    quality: Annotated[int, Field(ge=1, le=100)]  # of the JPEG encoder, where images are shrunk
    max_shard_bytes: Annotated[int, Field(ge=10_240)]  # a tar's own smallest size
    seed: NonNegativeInt  # of the order of samples within a split's shards
