"""What goes wrong outside of us, made to happen: a host without its cable, a slow line, a small disk, a clock that is off."""

from __future__ import annotations

import subprocess

from lab.hosts import NETWORK, container
from lab.podman import ROOT, as_root, podman


def unplug(name: str) -> None:
    """Cuts a host off; what is open there stays open."""
    _in_namespace(name, "--net", ["ip", "link", "set", "eth0", "down"])


def plug(name: str) -> None:
    """Undoes :func:`unplug`."""
    _in_namespace(name, "--net", ["ip", "link", "set", "eth0", "up"])


def slow(name: str, megabits: int) -> None:
    """Limits what goes from a host, and what goes to any, to so many megabits a second; 0 takes the limit away."""
    bridge = podman("network", "inspect", "--format", "{{.NetworkInterface}}", NETWORK).strip()
    change = ["tc", "qdisc", "replace" if megabits else "delete", "dev"]
    limit = ["root", *(f"tbf rate {megabits}mbit burst 256kb latency 100ms".split() if megabits else [])]
    _in_namespace(name, "--net", [*change, "eth0", *limit])
    subprocess.run(as_root([*change, bridge, *limit]), check=True)


def small_disk(name: str, folder: str, size: int) -> None:
    """Puts an empty disk of so many bytes at a folder of a host."""
    _in_namespace(name, "--mount", ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder])


def no_small_disk(name: str, folder: str) -> None:
    """Undoes :func:`small_disk`."""
    _in_namespace(name, "--mount", ["umount", folder])


def clock_off(days: int) -> dict[str, str]:
    """Environment of a Python program here whose clock is so many days ahead of the hosts', or behind them."""
    return {"PYTHONPATH": str(ROOT / "lab" / "clock"), "LAB_CLOCK_OFF_DAYS": str(days)}


def _in_namespace(name: str, kind: str, command: list[str]) -> None:
    """Runs a command with the rights of this machine's root where a host is."""
    pid = podman("inspect", "--format", "{{.State.Pid}}", container(name)).strip()
    subprocess.run(as_root(["nsenter", "--target", pid, kind, *command]), check=True)
