from __future__ import annotations

from typing import Any

from ansible.module_utils.juju_dr.agent_conf import AgentConf
from ansible.module_utils.juju_dr.endpoints import endpoint_of, old_endpoints, split_endpoint
from hypothesis import given
from hypothesis import strategies as st


def conf(*addresses: str) -> AgentConf:
    return AgentConf({"apiaddresses": ("", tuple(f"- {one}" for one in addresses))})


def test_every_source_is_asked_at_both_ports_and_at_its_own() -> None:
    controllers: list[dict[str, Any]] = [
        {"_id": "apiHostPorts", "apihostports": [[{"value": "10.0.0.1", "port": 443}, {"value": ""}]]},
        {"_id": "e"},
    ]
    machines = [{"addresses": [{"value": "10.0.0.2"}, {"value": "127.0.0.1"}], "machineaddresses": [{"value": "fe80::1"}]}]
    found = old_endpoints(
        controllers, machines, [conf("juju.example:17070", "[fd00::3]:17070", "bare")], ["10.0.0.4:37018"], 17070, 37017
    )
    assert set(found) == {
        *(f"{host}:{port}" for host in ("10.0.0.1", "10.0.0.2", "10.0.0.4", "juju.example", "bare") for port in (17070, 37017)),
        *("[fd00::3]:17070", "[fd00::3]:37017", "10.0.0.1:443", "10.0.0.4:37018"),
    }
    assert len(found) == len(set(found))


def test_what_is_everywhere_is_no_old_controller() -> None:
    confs = [conf("localhost:17070", "127.0.0.1:17070", "[::1]:17070", "[fe80::2]:17070", "0.0.0.0:17070")]
    assert old_endpoints([], [], confs, [], 17070, 37017) == []


@given(st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)), st.integers(1, 65535))
def test_an_endpoint_is_read_as_it_is_written(host: str, port: int) -> None:
    assert split_endpoint(endpoint_of(host, port)) == (host, port)
