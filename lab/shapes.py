"""What the lab can be: which hosts, at which addresses, in which role."""

from __future__ import annotations

from dataclasses import dataclass

SUBNET = "10.99.0.0/24"
GATEWAY = "10.99.0.1"
VERSIONS = {"2.9": "2.9.61", "3.6": "3.6.26"}


@dataclass(frozen=True)
class Host:
    """One host.

    :param role: ``controller``, ``machine`` (of the controller model), ``workload``, or ``spare``.
    :param machine_id: id in its model.
    """

    name: str
    address: str
    role: str
    machine_id: str = "0"


@dataclass(frozen=True)
class Shape:
    """A lab before its loss."""

    release: str
    hosts: tuple[Host, ...]

    @property
    def controllers(self) -> list[Host]:
        return [host for host in self.hosts if host.role == "controller"]

    @property
    def api_addresses(self) -> list[str]:
        return [f"{host.address}:17070" for host in self.controllers]


# The addresses are those of the fixtures, so that a probe of a fixture's controller never leaves the lab.
SHAPES = {
    "single-2.9": Shape(
        "2.9",
        (
            Host("c0", "10.99.0.11", "controller"),
            Host("m1", "10.99.0.12", "machine", "1"),
            Host("m2", "10.99.0.13", "machine", "2"),
            Host("w0", "10.99.0.14", "workload"),
        ),
    ),
    "ha-2.9": Shape(
        "2.9",
        (
            Host("c0", "10.99.0.11", "controller"),
            Host("c1", "10.99.0.12", "controller", "1"),
            Host("c2", "10.99.0.13", "controller", "2"),
            Host("w0", "10.99.0.14", "workload"),
        ),
    ),
    "single-3.6": Shape("3.6", (Host("c0", "10.99.0.15", "controller"), Host("w0", "10.99.0.16", "workload"))),
}
SPARES = {"n0": "10.99.0.21", "n1": "10.99.0.22"}
GROUPS = {
    "controller": "juju_controllers",
    "spare": "juju_restore_target",
    "machine": "juju_workloads",
    "workload": "juju_workloads",
}
