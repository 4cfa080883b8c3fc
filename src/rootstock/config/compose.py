"""Compose conf/ into one validated configuration, with Hydra, exactly as `dvc exp run` does."""

from pathlib import Path
from typing import Any

from rootstock.config.params import Params
from rootstock.config.section import ParamsError, parse


def compose(conf: Path, overrides: list[str]) -> dict[str, Any]:
    """Compose and validate.

    Args:
        conf: the folder with config.yaml.
        overrides: in Hydra's grammar: `data=mine`, `pretrain.training.epochs=20`.

    Returns:
        The sections of params.yaml as plain values.

    Raises:
        ParamsError: an unknown choice or key, a wrong type, a value out of range; names key, value and what is allowed.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # what Hydra parses with

    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf.resolve()), version_base=None):
            composed = hydra.compose("config", overrides=[_let_us_judge(override) for override in overrides])
        OmegaConf.resolve(composed)
        missing = sorted(OmegaConf.missing_keys(composed))
        value = OmegaConf.to_object(composed) if not missing else {}
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ParamsError(f"{conf}: {_readable(error)}") from None
    if missing:
        raise ParamsError(f"{conf}: {missing[0]}: missing; give it in conf/data/mine.yaml or as {missing[0]}=…")
    parse(Params, value, where="params")
    return {section: value[section] for section in Params.model_fields}


def expand(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of each configuration of a sweep (`a=1,2`), as DVC will; one list where nothing is swept.

    Raises:
        ParamsError: this is not Hydra's grammar.
    """
    from dvc.utils.hydra import get_hydra_sweeps
    from hydra.errors import HydraException

    if not overrides:
        return [[]]
    try:
        return [sweep["params.yaml"] for sweep in get_hydra_sweeps({"params.yaml": overrides})]
    except HydraException as error:
        raise ParamsError(f"{' '.join(overrides)}: {_readable(error)}") from None


def _let_us_judge(override: str) -> str:
    """Have Hydra add unknown keys, so that our own error names what is allowed there."""
    key = override.partition("=")[0]
    return f"++{override}" if "." in key and key[0] not in "+~" else override


def _readable(error: Exception) -> str:
    said = str(error).partition("Config search path:")[0]  # what follows are Hydra's own places
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return " ".join(lines) + cause
