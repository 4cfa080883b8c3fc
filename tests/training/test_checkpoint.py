"""Training states under damage and kills: the newest whole one is used, and what is read is what was written."""

import json
import random

import pytest
import torch

from rootstock.training import checkpoint

FACTS = {
    "history": [{"epoch": 1, "val_top1": 0.1 + 0.2, "val_loss": 1 / 3}],
    "plateau": {"best": None},
    "name": "Blüte",
}


def tensors(step: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {
        "model.weight": torch.randn(4, 3, 5, 5, generator=draw).to(memory_format=torch.channels_last),
        "model.half": torch.randn(7, generator=draw).bfloat16(),
        "sums": torch.tensor([1e300, float("-inf")], dtype=torch.float64),
        "nan": torch.tensor(float("nan")),
        "count": torch.tensor(step),
        "empty": torch.zeros(0, 3),
    }


def save(folder, *steps):
    for step in steps:
        checkpoint.save(folder, step=step, tensors=tensors(step), facts=FACTS | {"at": step})


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_whole(found, step: int) -> None:
    assert found is not None
    found_step, found_tensors, facts = found
    assert found_step == step
    assert facts == FACTS | {"at": step}
    wanted = tensors(step)
    assert found_tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found_tensors[name].dtype == tensor.dtype
        assert found_tensors[name].shape == tensor.shape
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (found_tensors[name], tensor)]
        assert torch.equal(*bits), name


def test_round_trip_is_bitwise(tmp_path):
    save(tmp_path / "state", 12)
    assert_whole(checkpoint.latest(tmp_path / "state"), 12)
    assert names(tmp_path / "state") == ["step-000000012.json", "step-000000012.safetensors"]


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "none") is None


def test_the_last_two_are_kept(tmp_path):
    save(tmp_path, 0, 5, 10, 1_000_000_000)
    assert names(tmp_path) == [
        f"step-{step}.{suffix}" for step in ("000000010", "1000000000") for suffix in ("json", "safetensors")
    ]
    assert_whole(checkpoint.latest(tmp_path), 1_000_000_000)


def test_equal_states_are_equal_bytes(tmp_path):
    save(tmp_path / "a", 3)
    save(tmp_path / "b", 3)
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_any_truncation_falls_back_to_the_state_before(tmp_path, suffix, capsys):
    save(tmp_path, 1, 2)
    path = tmp_path / f"step-000000002.{suffix}"
    data = path.read_bytes()
    cuts = {0, 1, 8, len(data) - 2, *random.Random(0).sample(range(len(data) - 1), 25)}
    for num_bytes in sorted(cuts):
        path.write_bytes(data[:num_bytes])
        assert_whole(checkpoint.latest(tmp_path), 1)
        assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_any_flipped_bit_is_found(tmp_path, suffix, capsys):
    save(tmp_path, 1, 2)
    path = tmp_path / f"step-000000002.{suffix}"
    data = path.read_bytes()
    for position in random.Random(1).sample(range(len(data)), 40):
        bit = 1 << random.Random(position).randrange(8)
        flipped = data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
        path.write_bytes(flipped)
        found = checkpoint.latest(tmp_path)
        if suffix == "json" and found[0] == 2:  # white space that still is white space
            assert json.loads(flipped) == json.loads(data)
            continue
        assert_whole(found, 1)
        assert "warning: " in capsys.readouterr().err


def test_a_state_without_its_json_does_not_count(tmp_path, capsys):
    save(tmp_path, 1, 2)
    (tmp_path / "step-000000002.json").unlink()
    assert_whole(checkpoint.latest(tmp_path), 1)
    assert capsys.readouterr().err == ""  # an interrupted save is no damage


def test_a_state_without_its_tensors_is_named(tmp_path, capsys):
    save(tmp_path, 1, 2)
    path = tmp_path / "step-000000002.safetensors"
    path.unlink()
    assert_whole(checkpoint.latest(tmp_path), 1)
    assert capsys.readouterr().err == f"warning: {path} is missing; continuing from the state before\n"


def test_another_steps_json_is_not_believed(tmp_path, capsys):
    save(tmp_path, 1, 2)
    (tmp_path / "step-000000002.json").write_bytes((tmp_path / "step-000000001.json").read_bytes())
    assert_whole(checkpoint.latest(tmp_path), 1)
    assert "step-000000002.json is damaged" in capsys.readouterr().err


def test_when_all_are_damaged_training_starts_anew(tmp_path, capsys):
    save(tmp_path, 1, 2)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"")
    assert checkpoint.latest(tmp_path) is None
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("moment", ["atomic", "write_json", "fsync_folder", "_prune"])
def test_a_kill_at_any_moment_leaves_a_whole_state(tmp_path, monkeypatch, moment):
    save(tmp_path, 1, 2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 3)
    assert_whole(checkpoint.latest(tmp_path), 3 if moment in ("fsync_folder", "_prune") else 2)
    save(tmp_path, 3)
    assert len(names(tmp_path)) == 4
    assert_whole(checkpoint.latest(tmp_path), 3)


def test_what_a_kill_left_is_cleared_by_the_next_save(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step-000000002.safetensors.99.tmp").write_bytes(b"half")
    (tmp_path / "step-000000002.safetensors").write_bytes(b"orphan")
    (tmp_path / "notes.txt").write_text("not ours")
    save(tmp_path, 3)
    assert names(tmp_path) == ["notes.txt"] + [
        f"step-00000000{step}.{suffix}" for step in (1, 3) for suffix in ("json", "safetensors")
    ]


def test_a_damaged_later_state_does_not_cost_a_whole_one(tmp_path, capsys):
    save(tmp_path, 4, 9)
    (tmp_path / "step-000000009.safetensors").write_bytes(b"")
    assert checkpoint.latest(tmp_path)[0] == 4
    save(tmp_path, 6)  # continued from 4
    (tmp_path / "step-000000006.safetensors").write_bytes(b"")
    assert_whole(checkpoint.latest(tmp_path), 4)


def test_numbers_that_json_cannot_hold_are_refused(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path, step=2, tensors=tensors(2), facts={"loss": float("nan")})
    assert_whole(checkpoint.latest(tmp_path), 1)


def trained(num_steps: int, *, restore_at: int | None = None, folder=None) -> dict[str, torch.Tensor]:
    """Train a small network; at `restore_at`, go on with a new optimiser and network that read the state."""

    def fresh():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 4, 3))
        network.to(memory_format=torch.channels_last)
        return network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)

    network, optimizer = fresh()
    for step in range(num_steps):
        if step == restore_at:
            momentum = checkpoint.optimizer_tensors(optimizer, dict(network.named_parameters()))
            assert sorted(momentum) == ["momentum.0.bias", "momentum.0.weight", "momentum.2.bias", "momentum.2.weight"]
            checkpoint.save(folder, step=step, tensors=network.state_dict() | momentum, facts={})
            network, optimizer = fresh()
            _, read, _ = checkpoint.latest(folder)
            checkpoint.load_optimizer(optimizer, dict(network.named_parameters()), read)
            network.load_state_dict({name: read[name] for name in network.state_dict()})
            for parameter in network.parameters():
                assert optimizer.state[parameter]["momentum_buffer"].stride() == parameter.stride()
        images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(images.to(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()
    return network.state_dict()


def test_training_continues_to_the_same_bits(tmp_path):
    whole, continued = trained(6), trained(6, restore_at=3, folder=tmp_path)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_before_the_first_step_there_is_no_momentum():
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    assert checkpoint.optimizer_tensors(optimizer, dict(network.named_parameters())) == {}
    checkpoint.load_optimizer(optimizer, dict(network.named_parameters()), {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("momentum.bias", "state: tensor momentum.bias: found (3,), wanted (2,)"),
        ("momentum.scale", "state: tensor momentum.scale: found (3,), wanted no such parameter"),
    ],
)
def test_momentum_of_another_network_is_refused(name, message):
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load_optimizer(optimizer, dict(network.named_parameters()), {name: torch.zeros(3)})
    assert str(caught.value) == message
