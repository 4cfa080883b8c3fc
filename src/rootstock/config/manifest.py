"""How images are listed, split and accepted."""

from typing import Literal

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
    decode: Decode
