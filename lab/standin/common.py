"""What both kinds of agents share: the log in Juju's format, passwords, and editing one's own agent.conf."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.juju_dr.agent_conf import AgentConf, parse, replace_sequence

STOP = threading.Event()
POLL_SECONDS = 1.5
_PRINTING = threading.Lock()


def log(level: str, logger: str, message: str) -> None:
    """One line as jujud writes it."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with _PRINTING:
        print(f"{stamp} {level} {logger} standin.go:1 {message}", flush=True)


def password_hash(password: str) -> str:
    """Juju's hash of an agent's password: agents' passwords are random and long, so it has no salt."""
    return base64.b64encode(hashlib.sha512(password.encode()).digest()[:18]).decode()


def read_conf(path: Path) -> AgentConf:
    return parse(path.read_text(encoding="utf-8"))


def write_conf(path: Path, text: str) -> None:
    status = path.stat()
    fresh = path.with_name("agent.conf.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as target:
        target.write(text)
    os.chown(fresh, status.st_uid, status.st_gid)
    fresh.replace(path)


def update_addresses(path: Path, servers: list[list[dict[str, Any]]], who: str) -> None:
    """The address updater: what the controller says is where it is, is what the agent dials from now on."""
    wanted = [
        f"{a['value']}:{a['port']}" for server in servers for a in server if a["networkscope"] in ("local-cloud", "public")
    ]
    text = path.read_text(encoding="utf-8")
    if wanted and parse(text).sequence("apiaddresses") != wanted:
        write_conf(path, replace_sequence(text, "apiaddresses", wanted))
        log(
            "INFO",
            "juju.worker.apiaddressupdater",
            f"{who}: API server address details {json.dumps(wanted)} written to agent config",
        )


def host_addresses() -> list[tuple[str, str]]:
    """This host's own addresses and their subnets; loopback ones are left out. A test names them in JUJU_LAB_ADDRESSES."""
    told = os.environ.get("JUJU_LAB_ADDRESSES")
    if told:
        return [(one.partition("/")[0], one) for one in told.split(",")]
    printed = subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, text=True, check=True).stdout
    found = [a for link in json.loads(printed) for a in link.get("addr_info", []) if a.get("scope") == "global"]
    return [(str(a["local"]), f"{a['local']}/{a['prefixlen']}") for a in found]


class Backoff:
    """Waits a little longer each time, and stops waiting when the agent is told to stop."""

    def __init__(self, first: float = 0.3, most: float = 3.0) -> None:
        self._next, self._first, self._most = first, first, most

    def wait(self) -> None:
        STOP.wait(self._next)
        self._next = min(self._next * 2, self._most)

    def reset(self) -> None:
        self._next = self._first
