"""The machine: what it is, and what it was doing while a training ran. Recorded, never a parameter."""

import os
import platform
from pathlib import Path

# what decides which kernels run, and so the last bits of a result
INSTRUCTION_SETS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve", "bf16")
GIGABYTE, MEGABYTE = 1e9, 1e6


def describe() -> dict:
    """Describe the machine as this process may use it.

    Returns:
        cpu, num_cores (those this process may run on), memory_gb (1e9 bytes), instruction_sets, cpu_capability (the
        kernels torch chose), num_threads (torch's, inside an operation), gpus (each: name, memory_gb, driver).
    """
    import psutil
    import torch

    info = _cpu_info()
    # a cpuinfo without flags (macOS) yields an empty list, not a guess
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / GIGABYTE, 1),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "num_threads": torch.get_num_threads(),
        "gpus": [gpu.describe() for gpu in gpus()],
    }


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    first = text.split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}


class Gpu:
    """One NVIDIA device, read through NVML: needs no CUDA context, so it never takes device memory."""

    def __init__(self, handle: object) -> None:
        self._handle = handle

    def describe(self) -> dict:
        """Return name, memory_gb and driver."""
        import pynvml

        return {
            "name": pynvml.nvmlDeviceGetName(self._handle),
            "memory_gb": round(pynvml.nvmlDeviceGetMemoryInfo(self._handle).total / GIGABYTE, 1),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
        }

    def sample(self) -> dict[str, float]:
        """Return utilisation, memory and power now; what the device does not report is left out."""
        import pynvml

        readings: dict[str, float] = {}
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            readings["memory_usage_megabytes"] = memory.used / MEGABYTE
            readings["memory_usage_percentage"] = 100.0 * memory.used / memory.total
            readings["utilization_percentage"] = float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
            readings["power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(self._handle) / 1e3
        except pynvml.NVMLError:  # a MIG slice has no utilisation, an old card no power
            pass
        return readings

    def joules(self) -> float | None:
        """Return the energy the device has used since its driver was loaded, or None where it does not count."""
        import pynvml

        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except pynvml.NVMLError:
            return None


def gpus() -> list[Gpu]:
    """Return the devices this process may use (`CUDA_VISIBLE_DEVICES`); none without NVML or a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return []
    except pynvml.NVMLError:
        return []
    try:
        return [Gpu(handle) for handle in _visible_handles()]
    except (pynvml.NVMLError, ValueError):  # a list of devices that CUDA would refuse too
        return []


def _visible_handles() -> list[object]:
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    names = [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    return [
        pynvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdecimal() else pynvml.nvmlDeviceGetHandleByUUID(name)
        for name in names
    ]


class Sampler:
    """Readings of the machine under the keys that MLflow's page of system metrics shows.

    MLflow's own monitor is not used: it stops for good at the first failure of the store, logs nothing for a run
    shorter than its interval, and keeps no energy.
    """

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._gpus = gpus()
        self._joules_at_start = [gpu.joules() for gpu in self._gpus]
        psutil.cpu_percent()  # the first call only sets the start of the interval

    def sample(self) -> dict[str, float]:
        """Return readings by key, such as `system/cpu_utilization_percentage` (mean since the last call)."""
        memory = self._psutil.virtual_memory()
        readings = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "process_memory_usage_megabytes": self._process.memory_info().rss / MEGABYTE,
        }
        for index, gpu in enumerate(self._gpus):
            readings |= {f"gpu_{index}_{key}": value for key, value in gpu.sample().items()}
        return {f"system/{key}": value for key, value in readings.items()}

    def energy_joules(self) -> float | None:
        """Return what the visible GPUs, whole devices, have used since the start; None without a GPU that counts."""
        pairs = [(start, gpu.joules()) for start, gpu in zip(self._joules_at_start, self._gpus, strict=True)]
        if not pairs or any(start is None or now is None for start, now in pairs):
            return None
        return sum(now - start for start, now in pairs)
