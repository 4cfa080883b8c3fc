"""Environment variables that choose processes, threads and devices are checked; sums are those of all ranks."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch

from rootstock import distributed
from rootstock.distributed import World


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "²", " 2"])
@pytest.mark.parametrize("name", ["ROOTSTOCK_PROCESSES", "ROOTSTOCK_THREADS"])
def test_a_number_that_is_none_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    call = {"ROOTSTOCK_PROCESSES": distributed.launch_processes, "ROOTSTOCK_THREADS": distributed.num_threads}[name]
    with pytest.raises(ValueError, match="wanted a whole number of at least 1") as caught:
        call()
    assert str(caught.value) == f"{name}: found {value!r}, wanted a whole number of at least 1"


def test_an_unknown_device_is_named(monkeypatch):
    monkeypatch.setenv("ROOTSTOCK_DEVICE", "tpu")
    with pytest.raises(ValueError, match="ROOTSTOCK_DEVICE: found 'tpu', wanted cpu or cuda"):
        distributed.join()


def test_alone_there_is_one_rank(monkeypatch):
    monkeypatch.setenv("ROOTSTOCK_DEVICE", "cpu")
    monkeypatch.setenv("ROOTSTOCK_THREADS", "1")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    world = distributed.join()
    assert world == World(0, 1, torch.device("cpu"))
    assert world.is_first
    assert torch.get_num_threads() == 1
    tensor = torch.ones(2)
    world.sum([tensor])
    world.meet()
    assert tensor.tolist() == [1, 1]
    distributed.leave()


def test_a_sum_keeps_shapes_types_and_memory_layouts(monkeypatch):
    """One flat buffer a dtype; a stand-in for the other rank doubles it."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: flat.mul_(2))
    image = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    tensors = [
        image.clone(memory_format=torch.preserve_format),
        torch.tensor([1.5], dtype=torch.float64),
        torch.tensor(3.0),
    ]
    World(0, 2, torch.device("cpu")).sum(tensors)
    assert torch.equal(tensors[0], 2 * image)
    assert tensors[0].is_contiguous(memory_format=torch.channels_last)
    assert tensors[1].tolist() == [3.0]
    assert tensors[1].dtype == torch.float64
    assert tensors[2].item() == 6.0


@pytest.mark.parametrize(
    ("processes", "elastic", "launched"), [("1", None, False), ("2", "run", False), ("2", None, True)]
)
def test_more_processes_are_launched_once(monkeypatch, processes, elastic, launched):
    calls = []
    monkeypatch.setattr(os, "execv", lambda *arguments: calls.append(arguments))
    monkeypatch.setenv("ROOTSTOCK_PROCESSES", processes)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="pipeline.finetune")))
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--seed", "3"])
    if elastic:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", elastic)
    else:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    distributed.launch_processes()
    assert bool(calls) == launched
    if launched:
        program, arguments = calls[0]
        assert program == sys.executable
        assert arguments[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        assert arguments[5:] == ["--module", "pipeline.finetune", "--seed", "3"]
