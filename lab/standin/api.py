"""The stand-in's API: TLS with the controller's certificate, logins checked against the documents, addresses handed out."""

from __future__ import annotations

import json
import os
import socket
import ssl
import tempfile
import threading
import time
from datetime import datetime, timezone
from typing import Any

from ansible.module_utils.juju_dr.agent_conf import AgentConf
from pymongo import errors as pymongo_errors

from lab.standin.agent import REFUSED
from lab.standin.common import POLL_SECONDS, STOP, log, password_hash


class Api:
    """Serves until the agent stops.

    :param listen: address to listen on; tests keep to loopback.
    """

    def __init__(self, conf: AgentConf, database: Any, listen: str) -> None:
        self._conf, self._database = conf, database
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as pem:
            pem.write(conf.require("controllercert") + "\n" + conf.require("controllerkey"))
            pem.flush()
            self._context.load_cert_chain(pem.name)
        self._listener = socket.create_server((listen, int(conf.require("apiport"))), backlog=128)

    def serve(self) -> None:
        log("INFO", "juju.apiserver", f"listening on {self._listener.getsockname()[0]}:{self._conf.require('apiport')}")
        while not STOP.is_set():
            connection, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, plain: socket.socket) -> None:
        try:
            plain.settimeout(20)
            with self._context.wrap_socket(plain, server_side=True) as connection:
                stream = connection.makefile("rwb")
                request = stream.readline().decode("latin-1").split()
                while stream.readline().strip():
                    pass
                if request[1:2] == ["/health"]:
                    stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nrunning\n")
                    stream.flush()
                else:
                    self._session(stream, request[1].split("/")[2])
        except (OSError, ValueError, IndexError, pymongo_errors.PyMongoError):
            # Probes hang up in the middle, agents go away, mongod restarts: the other side dials again.
            plain.close()

    def _session(self, stream: Any, model: str) -> None:
        login = json.loads(stream.readline())
        error = self._refusal(login, model)
        if error:
            log("INFO", "juju.apiserver", f"login of {login['tag']} for {model} refused: {error}")
            _send(stream, {"error": error})
            return
        log("INFO", "juju.apiserver.connection", f"agent login: {login['tag']} for {model}")
        self._seen(login["tag"], model)
        while not STOP.is_set():
            document = self._database.controllers.find_one({"_id": "apiHostPortsForAgents"})
            _send(stream, {"servers": document["apihostports"]})
            STOP.wait(POLL_SECONDS)

    def _refusal(self, login: dict[str, Any], model: str) -> str:
        """Why an agent may not log in, in Juju's words; empty when it may."""
        kind, _, name = str(login["tag"]).partition("-")
        if kind == "machine":
            entity = self._database.machines.find_one({"_id": f"{model}:{name.replace('-', '/')}"})
        else:
            application, _, number = name.rpartition("-")
            entity = self._database.units.find_one({"_id": f"{model}:{application}/{number}"})
        hashes = [password_hash(one) for one in login["passwords"] if one]
        if not entity or entity.get("life") == 2 or entity.get("passwordhash") not in hashes:
            return REFUSED
        if login["controller"] != self._conf.scalar("controller"):
            return "unknown controller"
        if kind == "machine" and entity.get("nonce") != login["nonce"]:
            return f"machine {name} not provisioned"
        return ""

    def _seen(self, tag: str, model: str) -> None:
        kind, _, name = tag.partition("-")
        now = datetime.now(timezone.utc)
        updated = {"updated": time.time_ns()}
        if kind != "machine":
            unit = "/".join(name.rpartition("-")[::2])
            self._database.statuses.update_one({"_id": f"{model}:u#{unit}"}, {"$set": updated})
            return
        machine = name.replace("-", "/")
        self._database.machines.update_one({"_id": f"{model}:{machine}"}, {"$set": {"agent-started-at": now}})
        self._database.statuses.update_one({"_id": f"{model}:m#{machine}"}, {"$set": {"status": "started", **updated}})


def _send(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def listen_address() -> str:
    return os.environ.get("JUJU_LAB_LISTEN", "")
