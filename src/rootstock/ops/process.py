"""Who a process is, so that a later one can say whether it still lives."""

import os
import socket
import sys
from pathlib import Path


def identity() -> dict:
    """Identify this process.

    Returns:
        pid, created (seconds since 1970: tells a reused pid apart), place (the host, boot and container of the pid).
    """
    import psutil

    return {"pid": os.getpid(), "created": psutil.Process().create_time(), "place": _place()}


def lives(identity: dict) -> bool | None:
    """Return whether the process lives; None when it ran where we cannot look (another host, boot or container)."""
    import psutil

    if identity["place"] != _place():
        return None
    try:
        process = psutil.Process(identity["pid"])
        # the kernel counts in ticks of 10 ms from boot, and the boot time itself is rounded
        return abs(process.create_time() - identity["created"]) < 2.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _place() -> str:
    parts = [socket.gethostname(), sys.platform]
    if sys.platform == "linux":
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
