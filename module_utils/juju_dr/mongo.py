"""How the controller's own MongoDB is reached, with pymongo 3.11 or 4.x."""

from __future__ import annotations

import atexit
import contextlib
import socket
import ssl
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .agent_conf import AgentConf
from .errors import JujuDrError

if TYPE_CHECKING:
    from pymongo import MongoClient

REPLICA_SET = "juju"


@dataclass(frozen=True)
class MongoAccess:
    """Where a mongod is and who logs in.

    :param username: None for a server without authentication.
    :param ca_file: None for a server without TLS.
    :param certificate_file: key and certificate that juju-db demands of its clients.
    :param socket_path: a unix socket instead of host and port.
    :param direct: this one member, whatever it is; otherwise the replica set's primary.
    """

    host: str = "127.0.0.1"
    port: int = 37017
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    certificate_file: str | None = None
    socket_path: str | None = None
    direct: bool = True


def _end_without_waiting() -> None:
    """A process that has a client ends at once.

    pymongo's threads look every half second whether they shall end, and when Python ends pymongo waits for them. They are
    daemons, and have nothing left to do once a client is closed.
    """
    for name in ("pymongo.monitor", "pymongo.synchronous.monitor"):
        hook = getattr(sys.modules.get(name), "_shutdown_resources", None)
        if hook is not None:
            atexit.unregister(hook)


def driver_version() -> str:
    """pymongo's version; empty when it is not installed."""
    with contextlib.suppress(ImportError):
        import pymongo

        return str(pymongo.version)
    return ""


def access_from_agent_conf(conf: AgentConf, mongo_common: str) -> MongoAccess:
    """The access that the machine agent of a controller has to its own member."""
    return MongoAccess(
        port=int(conf.require("stateport")),
        username=conf.require("tag"),
        password=conf.require("statepassword"),
        ca_file=f"{mongo_common}/ca.crt",
        certificate_file=f"{mongo_common}/server.pem",
    )


def connect(access: MongoAccess, timeout_seconds: float = 10.0) -> MongoClient[dict[str, Any]]:
    """A connection, tried once.

    :raises JujuDrError: no pymongo, no answer, wrong certificate or password.
    """
    # Not above: most modules ask for no database, and this takes them as long as all the rest.
    try:
        import pymongo
        from pymongo import errors as pymongo_errors
    except ImportError as error:
        raise JujuDrError("Python's pymongo is missing on this host", "Run: apt-get install python3-pymongo") from error
    _end_without_waiting()
    milliseconds = int(timeout_seconds * 1000)
    options: dict[str, Any] = {
        "serverSelectionTimeoutMS": milliseconds,
        "connectTimeoutMS": milliseconds,
        "appname": "juju-dr",
    }
    options.update({"directConnection": True} if access.direct else {"replicaSet": REPLICA_SET})
    if access.username:
        options.update(username=access.username, password=access.password, authSource="admin")
    if access.ca_file:
        options.update(
            tls=True,
            tlsCAFile=access.ca_file,
            tlsCertificateKeyFile=access.certificate_file,
            # server.pem names juju-mongodb; addresses change, the CA is what is trusted.
            tlsAllowInvalidHostnames=True,
        )
    where = access.socket_path or f"{access.host}:{access.port}"
    try:
        if access.socket_path:
            client: MongoClient[dict[str, Any]] = pymongo.MongoClient(
                "mongodb://" + quote(access.socket_path, safe=""), **options
            )
        else:
            # The driver asks again and again until its time is over; where nobody listens, once is enough.
            socket.create_connection((access.host, access.port), timeout_seconds).close()
            client = pymongo.MongoClient(access.host, access.port, **options)
        # Asks for authentication at once, so that a wrong password is named here.
        client.admin.command("connectionStatus")
    except pymongo_errors.OperationFailure as error:
        raise JujuDrError(
            f"MongoDB at {where} refused user {access.username}: {error.details.get('errmsg') if error.details else error}",
            "Check statepassword in agent.conf, and that this host's agent.conf and database belong together",
        ) from error
    except (pymongo_errors.PyMongoError, ssl.SSLError, OSError) as error:
        raise JujuDrError(
            f"MongoDB at {where} does not answer: {str(error)[:300]}",
            "Check that juju-db runs (systemctl status snap.juju-db.daemon) and that server.pem and ca.crt fit it",
        ) from error
    return client
