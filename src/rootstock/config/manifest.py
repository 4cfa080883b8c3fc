"""How images are listed, split and accepted."""

from typing import Annotated, Literal

from pydantic import Field

from rootstock.config.section import Fraction, NonNegativeInt, PositiveInt, Section


class Decode(Section):
    """How bytes become pixels; part of the data digest."""

    backend: Literal["simplejpeg", "pillow"]
    max_pixels: PositiveInt  # width × height above which an image is refused


class Manifest(Section):
    """The section `manifest.<dataset>`."""

    split_seed: NonNegativeInt  # of every split that the collection does not fix itself
    # of each class's train images, for ilsvrc2012 (its official validation set is our test); null for the others
    val_fraction: Fraction | None
    gate_fraction: Fraction  # of val, kept for promotion when fine-tuning trains on train and val
    max_reject_fraction: Fraction  # of all images; more refused images than this are a failure
    # `identical` leaves out train images whose bytes are also in val or test, or carry two labels; val and test stay
    drop_duplicates: Literal["none", "identical"]
    # bits of 64 by which the hashes of images that look alike may differ (benchmarks/leaks.py: what is found by which)
    near_radius: Annotated[int, Field(ge=0, le=11)]
    decode: Decode
