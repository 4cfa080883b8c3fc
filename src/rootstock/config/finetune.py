"""Fine-tuning on the target collection: one model for every strategy."""

from typing import Literal

from pydantic import model_validator

from rootstock.config.section import Section
from rootstock.config.training import Preprocess, Training


class Finetune(Section):
    """The section `finetune.<strategy>`."""

    # linear: a new head on the frozen backbone; full: head and backbone; scratch: the same network, nothing pretrained
    start: Literal["linear", "full", "scratch"]
    # of a scratch start; the others keep the normalisation under which their features were learned (null)
    preprocess: Preprocess | None
    # with val among them, val's gate images stay out and are what validation means
    splits: list[Literal["train", "val"]]
    training: Training

    @model_validator(mode="after")
    def _consistent(self) -> "Finetune":
        if self.splits not in (["train"], ["train", "val"]):
            raise ValueError(f"splits {self.splits}; wanted [train] or [train, val]")
        if (self.start == "scratch") != (self.preprocess is not None):
            raise ValueError(f"preprocess {self.preprocess}; wanted a value for start scratch and null for the others")
        return self
