"""One agent's login: dials every API address it knows, proves who it is, stays connected, and learns new addresses."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from lab.standin.common import STOP, Backoff, log, read_conf, update_addresses

DIAL_SECONDS = 3
REFUSED = "invalid entity name or password"


class Agent(threading.Thread):
    """A machine or unit agent with its own agent.conf.

    :param local: a controller's own agents reach the API on localhost.
    """

    def __init__(self, path: Path, local: bool = False) -> None:
        super().__init__(daemon=True)
        self.path, self.local = path, local
        self.refused = ""

    def run(self) -> None:
        backoff = Backoff()
        while not STOP.is_set() and not self.refused:
            try:
                self._session(backoff)
            except (OSError, ValueError) as error:
                log(
                    "ERROR",
                    "juju.worker.apicaller",
                    f"[{self.path.parent.name}] cannot open api: unable to connect to API: {error}",
                )
            backoff.wait()

    def _session(self, backoff: Backoff) -> None:
        conf = read_conf(self.path)
        tag, model = conf.require("tag"), conf.require("model")[len("model-") :]
        context = ssl.create_default_context(cadata=conf.require("cacert"))
        with self._dial(conf.sequence("apiaddresses"), context) as connection:
            host, port = connection.getpeername()[:2]
            where = f"{host}:{port}"
            stream = connection.makefile("rwb")
            stream.write(f"GET /model/{model}/api HTTP/1.1\r\nUpgrade: juju-lab\r\n\r\n".encode())
            passwords = [conf.scalar("apipassword") or "", conf.scalar("oldpassword") or ""]
            login = {"tag": tag, "nonce": conf.scalar("nonce"), "passwords": passwords, "controller": conf.scalar("controller")}
            stream.write(json.dumps(login).encode() + b"\n")
            stream.flush()
            answer = _line(stream)
            if answer.get("error"):
                log("ERROR", "juju.worker.apicaller", f'[{model[:6]}] "{tag}" cannot log in: {answer["error"]}')
                if answer["error"] == REFUSED or "not provisioned" in answer["error"]:
                    log("ERROR", "juju.worker.dependency", "agent should be terminated")
                    self.refused = answer["error"]
                return
            log("INFO", "juju.worker.apicaller", f'[{model[:6]}] "{tag}" successfully connected to "{where}"')
            backoff.reset()
            while not STOP.is_set():
                update_addresses(self.path, answer["servers"], tag)
                answer = _line(stream)

    def _dial(self, addresses: list[str], context: ssl.SSLContext) -> ssl.SSLSocket:
        """The first of all known addresses that answers with this controller's certificate."""
        port = addresses[0].rpartition(":")[2] if addresses else "17070"
        failures = []
        for address in [f"127.0.0.1:{port}"] if self.local else addresses:
            host, _, number = address.rpartition(":")
            try:
                plain = socket.create_connection((host, int(number)), DIAL_SECONDS)
                secured = context.wrap_socket(plain, server_hostname="juju-apiserver")
                # The controller is heard from every few seconds; longer silence is a lost connection.
                secured.settimeout(20)
                return secured
            except OSError as error:
                failures.append(f"{address}: {error}")
        raise OSError("; ".join(failures) or "no API addresses")


def _line(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise OSError("connection closed")
    answer: dict[str, Any] = json.loads(line)
    return answer


def unit_agents(data_dir: Path) -> list[Path]:
    """Unit agents run inside the machine agent, each with its own agent.conf."""
    return sorted(data_dir.glob("agents/unit-*/agent.conf"))


def run_workload(data_dir: Path, machine_id: str) -> int:
    """A machine agent of a workload, with its units; ends well when the controller does not want it."""
    machine = Agent(data_dir / "agents" / f"machine-{machine_id.replace('/', '-')}" / "agent.conf")
    agents = [machine, *(Agent(path) for path in unit_agents(data_dir))]
    for agent in agents:
        agent.start()
    while not STOP.wait(0.3):
        if machine.refused:
            return 0
    os._exit(0)
