"""Which fine-tunings are made: each strategy under each seed."""

from pydantic import model_validator

from rootstock.config.section import NonNegativeInt, Section


class Replicas(Section):
    """The section `replicas`; apart from `finetune`, so that a new seed reruns nothing that exists."""

    strategies: list[str]  # names of sections in `finetune`
    seeds: list[NonNegativeInt]

    @model_validator(mode="after")
    def _some_and_once(self) -> "Replicas":
        for name, values in (("strategies", self.strategies), ("seeds", self.seeds)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} {values}; wanted at least one, each once")
        return self
