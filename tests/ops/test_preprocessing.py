"""The network's first step takes its numbers from the same data, and from the part of the scene that it sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from rootstock.ops import preprocessing


def measured(*, short_side: int, crop_size: int, digest: str = "a" * 64) -> SimpleNamespace:
    """Statistics whose mean image is a horizontal ramp over the whole short side, cut to its central crop."""
    ramp = (np.arange(short_side) + 0.5) / short_side
    left = (short_side - crop_size) // 2
    image = np.broadcast_to(ramp[left : left + crop_size, None], (crop_size, crop_size, 3))
    return SimpleNamespace(
        geometry={"short_side": short_side, "crop_size": crop_size},
        mean_image=image,
        channel_mean=[0.5, 0.5, 0.5],
        channel_std_per_pixel=[0.2, 0.2, 0.2],
        data_digest=digest,
    )


@pytest.mark.parametrize(("short_side", "crop_size"), [(256, 256), (256, 240), (72, 64), (144, 128)])
def test_the_mean_image_shows_what_the_network_sees(short_side: int, crop_size: int) -> None:
    seen = preprocessing._seen_part(
        measured(short_side=short_side, crop_size=crop_size), image_size=64, resize_size=72
    )  # fmt: skip
    assert seen.shape == (64, 64, 3)
    # 64 of 72 pixels: the ramp from 4/72 to 68/72, in 64 steps
    wanted = (4 + np.arange(64) + 0.5) / 72
    np.testing.assert_allclose(seen[10, :, 0], wanted, atol=2e-3)


def test_a_crop_smaller_than_what_the_network_sees_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found 200 of short_side 256 pixels, wanted at least 228"):
        preprocessing._seen_part(measured(short_side=256, crop_size=200), image_size=64, resize_size=72)


def test_statistics_of_other_data_than_the_shards_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        preprocessing.stats_schema, "read", lambda *paths: measured(short_side=8, crop_size=8, digest="b" * 64)
    )
    shards = SimpleNamespace(facts={"data_digest": "c" * 64})
    with pytest.raises(ValueError, match="data_digest: found bbbbbbbbbbbb…, wanted cccccccccccc…"):
        preprocessing.statistics("target", shards)
    shards.facts["data_digest"] = "b" * 64
    assert preprocessing.statistics("target", shards).data_digest == "b" * 64
