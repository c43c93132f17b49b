"""Where the machines of a controller answered, gathered from everything in an archive that names them."""

from __future__ import annotations

import ipaddress
from typing import Any, Iterable, Mapping, Sequence

from .agent_conf import AgentConf
from .rules import addresses_of


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``.

    :raises ValueError: it has no port.
    """
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def endpoint_of(host: str, port: int) -> str:
    """The reverse of :func:`split_endpoint`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def old_endpoints(
    controllers: Iterable[Mapping[str, Any]],
    machines: Iterable[Mapping[str, Any]],
    confs: Iterable[AgentConf],
    member_hosts: Sequence[str],
    api_port: int,
    state_port: int,
) -> list[str]:
    """Every ``host:port`` at which a controller machine may answer, each host at the API's and the database's port.

    :param controllers: documents of collection ``controllers``; its ``apiHostPorts`` name names and addresses with ports.
    :param machines: the controllers' machine documents.
    :param confs: agent.conf of every agent: an old one may know a controller that no document names any more.
    :param member_hosts: ``host:port`` of the replica set's members, where the archive tells them.
    :returns: loopback and link-local hosts left out, for they mean another machine everywhere.
    """
    named = [one for machine in machines for one in addresses_of(machine)]
    exact = []
    for document in controllers:
        for server in document.get("apihostports") or []:
            exact += [(str(a["value"]), int(a.get("port", api_port))) for a in server if a.get("value")]
    for endpoint in [*(one for conf in confs for one in conf.sequence("apiaddresses")), *member_hosts]:
        try:
            exact.append(split_endpoint(endpoint))
        except ValueError:
            named.append(endpoint)
    hosts = dict.fromkeys([*named, *(host for host, _ in exact)])
    pairs = dict.fromkeys([(host, port) for host in hosts for port in (api_port, state_port)] + exact)
    return [endpoint_of(host, port) for host, port in pairs if not _everywhere(host)]


def _everywhere(host: str) -> bool:
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host in ("localhost", "")
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified
