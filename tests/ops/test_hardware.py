"""What the machine is and does; GPUs stand in for themselves."""

import sys
import types

import pytest
import torch

from rootstock.ops import hardware
from rootstock.schema.run import HARDWARE


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch):
    """A driver with two devices, the second of which reports no power and no energy."""
    fake = types.ModuleType("pynvml")
    fake.NVMLError = NVMLError
    fake.energy = 5_000
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetCount = lambda: 2
    fake.nvmlDeviceGetHandleByIndex = lambda index: index
    fake.nvmlDeviceGetHandleByUUID = lambda uuid: {"GPU-b": 1}[uuid]
    fake.nvmlDeviceGetName = lambda handle: f"card {handle}"
    fake.nvmlSystemGetDriverVersion = lambda: "1.2"
    fake.nvmlDeviceGetMemoryInfo = lambda handle: types.SimpleNamespace(used=2e9, total=8e9)
    fake.nvmlDeviceGetUtilizationRates = lambda handle: types.SimpleNamespace(gpu=50)
    fake.nvmlDeviceGetPowerUsage = lambda handle: 70_000 if handle == 0 else refuse()
    fake.nvmlDeviceGetTotalEnergyConsumption = lambda handle: fake.energy if handle == 0 else refuse()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def refuse():
    raise NVMLError


def test_the_machine_is_described():
    found = hardware.describe()
    assert set(found) | {"device"} == HARDWARE
    assert found["num_threads"] == torch.get_num_threads()
    assert found["num_cores"] >= 1
    assert found["memory_gb"] > 0.1
    assert found["cpu"]
    assert set(found["instruction_sets"]) <= set(hardware.INSTRUCTION_SETS)


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["card 0", "card 1"]), ("1", ["card 1"]), ("GPU-b,0", ["card 1", "card 0"]), ("", []), ("-1", [])],
)
def test_only_visible_gpus_are_ours(nvml, monkeypatch, visible, names):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = [gpu.describe() for gpu in hardware.gpus()]
    assert found == [{"name": name, "memory_gb": 8.0, "driver": "1.2"} for name in names]


def test_readings_have_mlflows_keys_and_leave_out_what_a_device_does_not_say(nvml):
    readings = hardware.Sampler().sample()
    assert readings["system/gpu_0_power_usage_watts"] == 70.0
    assert readings["system/gpu_0_memory_usage_percentage"] == 25.0
    assert readings["system/gpu_1_utilization_percentage"] == 50.0
    assert "system/gpu_1_power_usage_watts" not in readings
    assert 0 <= readings["system/cpu_utilization_percentage"] <= 100
    assert readings["system/process_memory_usage_megabytes"] > 1


def test_energy_is_what_was_used_since_the_start(nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    sampler = hardware.Sampler()
    nvml.energy += 2_500
    assert sampler.energy_joules() == 2.5


def test_energy_is_unknown_when_a_device_does_not_count_it(nvml):
    assert hardware.Sampler().energy_joules() is None


@pytest.mark.parametrize("missing", ["package", "driver"])
def test_without_a_gpu_there_is_nothing_to_say(nvml, monkeypatch, missing):
    if missing == "package":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        nvml.nvmlInit = refuse
    assert hardware.gpus() == []
    assert hardware.Sampler().energy_joules() is None
