"""What to fetch: one model for each kind of collection, told apart by `collection`."""

from typing import Annotated, Literal

from pydantic import Field, RootModel, model_validator

from rootstock.config.section import Fraction, NonNegativeInt, Section

Checksums = Literal["official", "own", "off"]


class Demo(Section):
    """Generated images in an official archive layout, deterministic from `seed`."""

    collection: Literal["demo"]
    layout: Literal["ilsvrc2012", "flowers102"]
    seed: NonNegativeInt

    @property
    def checksums(self) -> Checksums:
        """Generated archives are compared with nothing published."""
        return "off"

    @property
    def has_val(self) -> bool:
        """As the imitated collection."""
        return self.layout != "ilsvrc2012"


class Official(Section):
    """A published collection in its official archives."""

    collection: Literal["ilsvrc2012", "flowers102"]
    # official: the published md5 sums; own: `sums` below; off: sizes and sha256 are recorded, not compared
    checksums: Checksums
    sums: dict[str, str]  # archive name -> sha256, for `own`

    @property
    def has_val(self) -> bool:
        """Whether there is a val split without `manifest.<dataset>.val_fraction`."""
        return self.collection != "ilsvrc2012"

    @model_validator(mode="after")
    def _sums_belong_to_own(self) -> "Official":
        if (self.checksums == "own") != bool(self.sums):
            raise ValueError("`sums` are given exactly when checksums is own")
        return self


class Folder(Section):
    """A person's own images: `class/*.jpg` or `{train,val,test}/class/*.jpg`."""

    collection: Literal["folder"]
    path: str
    val_fraction: Fraction  # of each class, where the folder gives no splits
    test_fraction: Fraction

    @property
    def checksums(self) -> Checksums:
        """A person's own files have no published sums."""
        return "off"

    @property
    def has_val(self) -> bool:
        """Given as a folder, or split off by `val_fraction` above."""
        return True

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> "Folder":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction {self.val_fraction} + test_fraction {self.test_fraction} leave nothing to train on; "
                "wanted a sum < 1"
            )
        return self


Collection = Annotated[Demo | Official | Folder, Field(discriminator="collection")]


class Fetch(RootModel[Collection]):
    """The section `fetch.<dataset>`."""
