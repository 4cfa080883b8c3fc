import copy
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from rootstock import rng
from rootstock.evaluation import figures, metrics, mistakes, report
from rootstock.evaluation.predictions import table
from rootstock.evaluation.select import choose
from rootstock.evaluation.verdict import judge
from rootstock.schema.duplicates import DUPLICATES

EVIL = '<script>alert("1")</script>'
ACCURACY = {"full": 0.86, "linear": 0.74, "scratch": 0.55}


def predictions(strategy: str, seed: int, num_classes: int, views: list[str]) -> pd.DataFrame:
    frames = []
    for split, num_images in (("val", 10 * num_classes), ("test", 20 * num_classes)):
        draw = rng.stream("test-report", strategy, seed, split)
        labels = draw.permutation(np.arange(num_images) % num_classes)
        margin = 1.6 + 4.5 * (ACCURACY[strategy] - 0.5) + 0.1 * seed - labels / num_classes
        for view in views:
            scores = draw.normal(size=(num_images, num_classes))
            scores[np.arange(num_images), labels] += margin + np.log(num_classes) / 2
            exponent = np.exp(1.3 * scores)
            keys = [f"jpg/image_{index:05d}" for index in range(num_images)]
            shares = exponent / exponent.sum(axis=1, keepdims=True)
            frames.append(table(split=split, view=view, keys=keys, labels=labels, probabilities_NK=shares))
    return pd.concat(frames, ignore_index=True)


def history(name: str, epochs: int, best: float) -> pd.DataFrame:
    draw = rng.stream("test-report-history", name)
    epoch = np.arange(1, epochs + 1)
    rise = 1 - np.exp(-3 * epoch / epochs)
    noise = draw.normal(size=epochs) / 100
    return pd.DataFrame(
        {"epoch": epoch, "train_loss": 3 * (1 - 0.8 * rise) + noise, "val_top1": np.clip(best * rise + noise, 0, 1)}
    )


def statistics(collection: str, num_classes: int) -> dict:
    return {
        "collection": collection,
        "num_images": 1020,
        "num_pixels": 4177920,
        "geometry": {"short_side": 72, "crop_size": 64},
        "channel_mean": [0.4355, 0.3777, 0.2880],
        "channel_std_per_pixel": [0.2956, 0.2451, 0.2705],
        "channel_std_mean_of_images": [0.2448, 0.2012, 0.2165],
        "covariance": [[0.0874, 0.0526, 0.0372], [0.0526, 0.0601, 0.0398], [0.0372, 0.0398, 0.0732]],
        "eigenvalues": [0.16, 0.044, 0.0167],
        "eigenvectors": [[0.66, 0.55, 0.51], [-0.68, 0.12, 0.72], [0.33, -0.83, 0.45]],
        "class_counts": [10] * num_classes,
    }


def photograph(*names: str | int, side: int = 96) -> np.ndarray:
    draw = rng.stream("test-report-photograph", *names)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    petals = np.cos(draw.integers(4, 9) * np.arctan2(y, x) / 2) ** 2 > np.hypot(x, y)
    colour, ground = draw.uniform(0.4, 1, 3), draw.uniform(0.1, 0.5, 3)
    return (255 * np.where(petals[..., None], colour, ground * (1 + y[..., None] / 2))).astype(np.uint8)


TWINS = [
    ("identical", "jpg/a", "train", 0, "jpg/b", "test", 0, 0, False),
    ("identical", "jpg/c", "train", 2, "jpg/d", "test", 1, 0, False),
    ("near", "jpg/e", "train", 3, "jpg/f", "test", 3, 7, True),
    ("near", "jpg/g", "val", 3, "jpg/f", "test", 3, 9, False),
]


def found_twice(class_names: list[str], twins: list[tuple]) -> dict:
    return {
        "facts": {
            "num_images": 8189,
            "num_dropped": len(twins) // 2,
            "near_radius": 11,
            "same_place": {
                "identical": {"train": 0, "val": 0, "test": 0},
                "near": {"train": len(twins), "val": 0, "test": len(twins) // 2},
            },
        },
        "rows": pd.DataFrame(twins, columns=list(DUPLICATES.columns)),
        "images": {f"jpg/{name}": photograph("twin", name) for name in "bdef"} if twins else {},
        "class_names": class_names,
    }


def inputs(num_classes: int, *, views: tuple[str, ...] = ("center", "ten"), seeds: int = 3) -> dict:
    names = ["pink primrose", "hard-leaved pocket orchid", EVIL, "Ranunculus & co", "sweet pea", "tiger lily"]
    class_names = (names + [f"flower number {index}" for index in range(num_classes)])[:num_classes]
    frames = {(s, k): predictions(s, k, num_classes, list(views)) for s in ACCURACY for k in range(seeds)}
    found = {name: metrics.compute(frame) for name, frame in frames.items()}
    selection = choose(
        [{"strategy": s, "seed": k, "metrics": value} for (s, k), value in found.items()],
        view="center",
        metric="mean_per_class",
    )
    chosen = frames[selection["selected"]["strategy"], selection["selected"]["seed"]]
    errors = mistakes.worst_errors(chosen[(chosen["split"] == "test") & (chosen["view"] == "center")], num_errors=6)
    rejects = pd.DataFrame(
        {
            "key": ["jpg/image_00017", "jpg/image_00018", "jpg/" + "very_long_name_" * 8],
            "split": "train",
            "label": 0,
            "archive": "102flowers.tar",
            "offset": 512,
            "num_bytes": [0, 1234, 99999],
            "reason": ["empty file", "truncated after 1 200 bytes", f"not an image: {EVIL}"],
        }
    )
    hardware = {"cpu": "Some Processor 9000 @ 2.10GHz", "num_cores": 2, "memory_gb": 8.1, "gpus": []}
    return {
        "target_name": f"Flowers {EVIL}",
        "selection": selection,
        "metrics": found,
        "predictions_frame": chosen,
        "histories": {"pretrain": history("pretrain", 30, 0.45)}
        | {f"finetune-{s}-{k}": history(f"{s}{k}", 20, ACCURACY[s]) for s, k in frames},
        "stats": {"source": statistics("demo", num_classes), "target": statistics(EVIL, num_classes)},
        "mean_images": {"source": photograph("mean", side=64), "target": photograph("mean", 1, side=64)},
        "galleries": [
            {
                "title": "Training images and what training sees",
                "caption": "Left the image itself, then random crops, flips and colour shifts of it.",
                "labels": class_names[:4],
                "rows": [[photograph(row, column) for column in range(7)] for row in range(4)],
            },
            {"title": "Validation", "caption": "The central crop.", "rows": [[photograph(9, c) for c in range(8)]]},
        ],
        "error_images": {key: photograph(key) for key in errors["key"][:5]},
        "duplicates": {"source": found_twice(class_names, []), "target": found_twice(class_names, TWINS)},
        "rejects": {"source": rejects.iloc[:0], "target": rejects},
        "runs": {
            "pretrain": {"wall_seconds": 3725.0, "images_per_second": 251.3, "hardware": hardware},
            "evaluate-full-0": {"wall_seconds": 12.25},
            "finetune-full-0": {"wall_seconds": 185.2, "images_per_second": 240.0, "hardware": "2 cores <b>"},
        },
        "class_names": class_names,
        "commands": ["make repro            # everything again", "make ui               # MLflow: every run"],
        "num_errors": 6,
        "num_duplicates": 3,
        "num_rejects": 2,
    }


class Page(HTMLParser):
    """Collects what a browser would: tags, links, ids, text; and whether every element is closed."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.fixture(scope="module")
def small() -> dict:
    return inputs(6)


@pytest.fixture(scope="module")
def page(small: dict) -> Page:
    return Page(report.build(**small))


@pytest.fixture(scope="module")
def large_page() -> Page:
    return Page(report.build(**inputs(40, views=("center",), seeds=2)))


def test_the_page_is_whole_and_needs_nothing_else(page: Page, large_page: Page) -> None:
    for one in (page, large_page):
        assert one.open == []
        assert not {"script", "link", "iframe", "object"} & set(one.tags)
        for name, value in one.attributes:
            assert not name.startswith("on"), name
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/png;base64,", "#")), value[:60]
            if name == "style":
                assert not re.search(r"url\((?!#)", value), value
        ids = [value for name, value in one.attributes if name == "id"]
        anchors = [value[1:] for name, value in one.attributes if name == "href" and value.startswith("#")]
        assert set(anchors) <= set(ids)


def test_names_are_escaped_everywhere(small: dict) -> None:
    text = report.build(**small)
    assert "<script" not in text
    assert "<b>" not in text.replace("<b>", "", 4)  # the four headline figures
    # title, heading, class tables, gallery label, rejects' reason, collection
    assert text.count("&lt;script&gt;") >= 7


def test_verdict_figures_stand_in_the_page(small: dict, page: Page) -> None:
    selected = small["selection"]["selected"]
    of_test = small["metrics"][selected["strategy"], selected["seed"]]["test"]["center"]
    for name in ("mean_per_class", "top1"):
        assert f"{100 * of_test[name]['value']:.1f} %" in page.text
        assert f"{100 * of_test[name]['low']:.1f} to {100 * of_test[name]['high']:.1f}" in page.text
    assert f"n = {of_test['num_images']}" in page.text
    assert (
        f"The chosen model is full, seed {selected['seed']}: the best of 9 replicas by mean per-class accuracy"
        in page.text
    )
    assert "which decided nothing" in page.text


def test_every_replica_has_its_row(small: dict, page: Page) -> None:
    for value in small["metrics"].values():
        for judged in value["test"].values():
            one = judged["mean_per_class"]
            assert f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]" in page.text
    spread = metrics.spread([small["metrics"]["linear", seed]["test"]["ten"]["top1"]["value"] for seed in range(3)])
    assert f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f}" in page.text


def test_rejects_timings_and_commands_are_listed(page: Page) -> None:
    assert "empty file (1)" in page.text
    assert "2 of 3 shown" in page.text
    assert "None: every image was accepted." in page.text
    assert "1 h 02 min" in page.text
    assert "12.2 s" in page.text
    assert "Some Processor 9000 @ 2.10GHz, 2 cores, 8.1 GB" in page.text
    assert "make repro # everything again" in page.text


def test_duplicates_are_counted_and_shown_side_by_side(page: Page) -> None:
    assert "4 of 8 189 images show the same as one of another split or label; dropped from train" in page.text
    for row in ("identicaltraintest11", "neartraintest10", "nearvaltest10"):  # the cells of a row
        assert row in page.text
    assert "Within one split and label, which leaks nothing: 6 near (train 4, test 2)." in page.text
    assert "identical bytes" in page.text
    assert "near: 7 of 64 bits differ, mirrored" in page.text
    assert "3 of 4 shown; all are in data/manifest/target.duplicates.parquet" in page.text
    assert page.text.count("dropped pink primrose") == 1, "no picture of a dropped image"
    shown = [value for name, value in page.attributes if name == "alt"]
    assert [key for key in "abcdefg" if f"jpg/{key}" in shown] == list("bdef")
    assert (
        "None: among 8 189 images no bytes are in two splits or under two labels, and no two such images look "
        "alike (hashes within 11 of 64 bits)." in page.text
    )


def test_dropped_duplicates_are_one_reason(small: dict) -> None:
    frame = small["rejects"]["target"].assign(reason=[f"duplicate: the same bytes as {n} (test)" for n in range(3)])
    assert "3 rejected: duplicate of another image (3)." in Page(report.build(**small | {"rejects": {"t": frame}})).text


def test_rare_reasons_are_summed_up_and_one_epoch_is_enough(small: dict) -> None:
    many = pd.concat([small["rejects"]["target"]] * 4, ignore_index=True)
    many["reason"] = [f"truncated at byte {index}" for index in range(len(many))]
    other = small | {"rejects": {"target": many}, "histories": {"pretrain": history("short", 1, 0.5)}}
    assert "and 4 for other reasons." in Page(report.build(**other)).text


def test_the_same_inputs_give_the_same_bytes(small: dict) -> None:
    assert report.build(**small) == report.build(**copy.deepcopy(small))


def test_many_classes_become_a_picture_and_a_folded_table(page: Page, large_page: Page) -> None:
    assert "true ↓ predicted →" in page.text
    assert "All 40 classes" in large_page.text
    assert "true ↓ predicted →" not in large_page.text


def test_a_bare_project_still_has_a_report(small: dict) -> None:
    bare = copy.deepcopy(small) | {"histories": {}, "stats": {}, "mean_images": {}, "galleries": [], "rejects": {}}
    bare |= {"duplicates": {}, "runs": {}, "error_images": {}, "num_errors": 0}
    page = Page(report.build(**bare))
    assert "No timings were recorded." in page.text
    assert "curves" not in [value for name, value in page.attributes if name == "id"]


def test_without_a_test_split_the_page_says_its_figures_are_optimistic(small: dict) -> None:
    without = copy.deepcopy(small)
    for value in without["metrics"].values():
        del value["test"]
    frame = without["predictions_frame"]
    without["predictions_frame"] = frame[frame["split"] == "val"]
    text = Page(report.build(**without)).text
    assert "has no test split" in text
    assert "which decided nothing" not in text


def judged(values: dict[tuple[str, int], float]) -> dict:
    """Every replica's metrics with these values on both splits, ± 0.02 over images."""
    found = {}
    for name, value in values.items():
        interval = {"value": value, "low": value - 0.02, "high": value + 0.02}
        one = {"center": {"mean_per_class": interval, "top1": interval, "top5": interval, "log_loss": 1.0}}
        found[name] = {split: {"center": one["center"] | {"num_images": 500}} for split in ("val", "test")}
    candidates = [{"strategy": s, "seed": k, "metrics": value} for (s, k), value in found.items()]
    return {"metrics": found, "selection": choose(candidates, view="center", metric="mean_per_class")}


@pytest.mark.parametrize(
    ("values", "apart", "sentence"),
    [
        (
            {("full", 0): 0.80, ("full", 1): 0.82, ("scratch", 0): 0.59, ("scratch", 1): 0.61},
            False,  # two seeds leave a wide interval of the mean
            "With pretraining (full, 2 seeds) 81.0 ± 1.4 % mean per-class accuracy on test, from scratch (2 seeds) "
            "60.0 ± 1.4 %: pretraining is 21.0 points better, and the 95 % intervals of the means over seeds, "
            "68.3 to 93.7 and 47.3 to 72.7, overlap.",
        ),
        (
            {("full", 0): 0.80, ("scratch", 0): 0.60},
            True,
            "With pretraining (full, 1 seed) 80.0 % mean per-class accuracy on test, from scratch (1 seed) 60.0 %: "
            "pretraining is 20.0 points better, and the 95 % intervals over images (a single seed has no spread over "
            "seeds), 78.0 to 82.0 and 58.0 to 62.0, are apart.",
        ),
        (
            # the control was chosen: it is compared with the best of the others
            {("full", 0): 0.60, ("linear", 0): 0.50, ("scratch", 0): 0.80},
            True,
            "With pretraining (full, 1 seed) 60.0 % mean per-class accuracy on test, from scratch (1 seed) 80.0 %: "
            "pretraining is 20.0 points worse, and the 95 % intervals over images (a single seed has no spread over "
            "seeds), 58.0 to 62.0 and 78.0 to 82.0, are apart.",
        ),
        (
            {("full", 0): 0.60},
            None,
            "Nothing to compare: pretraining is judged against a strategy named scratch, trained beside another.",
        ),
    ],
)
def test_the_comparison_in_words(values: dict, apart: bool | None, sentence: str) -> None:
    verdict = judge(**judged(values))
    assert verdict.comparison == sentence
    assert verdict.apart is apart


def test_worst_errors_and_confusions() -> None:
    shares = [[0.1, 0.9, 0.0], [0.3, 0.6, 0.1], [0.8, 0.1, 0.1], [0.0, 0.4, 0.6]]
    rows = table(
        split="test",
        view="center",
        keys=["a", "b", "c", "d"],
        labels=np.array([0, 0, 0, 1]),
        probabilities_NK=np.array(shares),
    )
    errors = mistakes.worst_errors(rows, num_errors=2)
    assert errors["key"].tolist() == ["a", "b"]
    assert errors["confidence"].tolist() == pytest.approx([0.9, 0.6])
    assert errors["probability"].tolist() == pytest.approx([0.1, 0.3])
    pairs = mistakes.worst_confusions(metrics.confusion(rows), num_pairs=9)
    assert pairs.to_dict("list") == {"label": [0, 1], "predicted": [1, 2], "num_images": [2, 1], "share": [2 / 3, 1.0]}


def test_figures_carry_no_date_and_take_the_pages_ink() -> None:
    text = figures.curves([("pretrain", history("a", 5, 0.5)), ("<i>$x$</i>", history("b", 5, 0.5))])
    assert text == figures.curves([("pretrain", history("a", 5, 0.5)), ("<i>$x$</i>", history("b", 5, 0.5))])
    assert text.startswith("<svg role=")
    assert "currentColor" in text
    assert figures.INK not in text
    assert not re.search(r"<i>|dc:date|<style|20[0-9]{2}-", text)


def test_heat_map_shows_rare_confusions() -> None:
    import base64
    import io

    from PIL import Image

    uri = figures.heat_map(np.array([[0.96, 0.04], [0.0, 1.0]]))
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert image.shape == (512, 512, 4)
    assert image[::256, ::256, 3].tolist() == [[251, 102], [0, 255]]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (61, "1 min 01 s"), (3599.7, "1 h 00 min"), (7380, "2 h 03 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text
