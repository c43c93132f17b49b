"""Makes the one member of a restored controller's replica set.

That Juju's peergrouper keeps it was made sure of before, on the documents (see rewriting.py).
"""

from __future__ import annotations

import time
from typing import Any

from pymongo import errors as pymongo_errors

from .controller_host import machine_agent
from .errors import JujuDrError
from .mongo import REPLICA_SET, access_from_agent_conf, connect
from .peergrouper import MACHINE_TAG

PRIMARY_SECONDS = 120
ANSWER_SECONDS = 120


def make_member(data_dir: str, mongo_common: str, machine_id: str, address: str, apply: bool) -> tuple[bool, dict[str, Any]]:
    """Initiates the replica set, or moves its only member, and waits until it is PRIMARY.

    :returns: whether anything changed, and the member.
    :raises JujuDrError: there are other members, or no primary comes about.
    """
    conf = machine_agent(data_dir).conf
    host = f"{address}:{conf.require('stateport')}"
    wanted = {"_id": 1, "host": host, "tags": {MACHINE_TAG: machine_id}}
    with _answering(access_from_agent_conf(conf, mongo_common)) as client:
        config = _present(client)
        if config is None:
            changed = True
            if apply:
                client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "version": 1, "members": [wanted]})
        else:
            if len(config["members"]) != 1:
                raise JujuDrError(
                    f"The replica set has {len(config['members'])} members, a restored one has one",
                    "Set the database aside",
                )
            changed = {key: config["members"][0].get(key) for key in wanted} != wanted
            if changed and apply:
                moved = {**config, "version": config["version"] + 1, "members": [wanted]}
                client.admin.command({"replSetReconfig": moved, "force": True})
        if apply:
            _wait_primary(client)
    return changed, wanted


def _answering(access: Any) -> Any:
    """A client as soon as mongod, just started, answers."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return connect(access, timeout_seconds=2.0)
        except JujuDrError as error:
            if "refused user" in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _present(client: Any) -> dict[str, Any] | None:
    try:
        config: dict[str, Any] = client.admin.command("replSetGetConfig")["config"]
    except pymongo_errors.OperationFailure as error:
        # 94: NotYetInitialized
        if error.code == 94:
            return None
        raise
    return config


def _wait_primary(client: Any) -> None:
    deadline = time.monotonic() + PRIMARY_SECONDS
    while not client.admin.command("isMaster").get("ismaster"):
        if time.monotonic() > deadline:
            raise JujuDrError(f"The member is not PRIMARY after {PRIMARY_SECONDS} s", "Look at mongod's log on that host")
        time.sleep(0.1)
