from typing import get_args

import pytest

from rootstock.config.evaluate import Evaluate
from rootstock.config.report import Report
from rootstock.config.section import ParamsError, parse
from rootstock.config.select import Select
from rootstock.evaluation.views import CROPS


def test_valid_sections() -> None:
    section = parse(Evaluate, {"views": ["center", "ten"], "batch_size": 64}, where="evaluate")
    assert section.views == list(CROPS)
    assert set(get_args(Select.model_fields["view"].annotation)) == set(CROPS)
    parse(Report, {"num_samples": 8, "num_errors": 0, "num_rejects": 20, "num_duplicates": 0}, where="report")


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        (
            Evaluate,
            {"views": [], "batch_size": 1},
            r"evaluate\.views: \[\] is not allowed: list should have at least 1",
        ),
        (Evaluate, {"views": ["ten", "ten"], "batch_size": 1}, "each view once"),
        (Evaluate, {"views": ["five"], "batch_size": 1}, "'five' is not allowed.*'center' or 'ten'"),
        (Evaluate, {"views": ["ten"], "batch_size": 0}, r"evaluate\.batch_size: 0 is not allowed"),
        (Evaluate, {"views": ["ten"], "batchsize": 1}, "unknown key .* did you mean batch_size"),
        (Select, {"view": "ten", "metric": "top5"}, "'top1' or 'mean_per_class'"),
        (
            Report,
            {"num_samples": 0, "num_errors": 0, "num_rejects": 0, "num_duplicates": 0},
            "num_samples: 0 is not allowed",
        ),
    ],
)
def test_refused_values_are_named(model: type, value: dict, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(model, value, where="evaluate")
