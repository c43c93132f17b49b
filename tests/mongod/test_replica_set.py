"""The one member of a restored controller, on a real mongod: made, moved, and refused where there are others."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import replica_set
from ansible.module_utils.juju_dr.controller_host import controller_client
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.load import load_into_juju_db
from test_loading_server import SERVICE, JujuDb, juju_db

from lab.modules import call

__all__ = ["juju_db"]


def test_the_member_is_made_once_moved_and_never_one_of_several(
    juju_db: JujuDb, fixture_archive: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"data_dir": str(juju_db.data), "mongo_common": str(juju_db.common)}
    load_into_juju_db(str(fixture_archive), str(juju_db.conf_path), "0", where["mongo_common"], SERVICE, juju_db.run)
    juju_db.run(["systemctl", "start"])

    def member(address: str, **more: object) -> dict[str, object]:
        return call(capsys, "juju_replica_set", address=address, machine_id="0", **where, **more)

    told = member("127.0.0.1", _ansible_check_mode=True)
    assert told["changed"]
    made = member("127.0.0.1")
    assert (made["changed"], made["member"]) == (True, told["member"])
    assert not member("127.0.0.1")["changed"]
    assert member("localhost")["changed"]
    with controller_client(**where) as client:
        config = client.admin.command("replSetGetConfig")["config"]
        assert [(one["_id"], one["host"].partition(":")[0], one["tags"]) for one in config["members"]] == [
            (1, "localhost", {"juju-machine-id": "0"})
        ]
        config["members"].append({"_id": 2, "host": "127.0.0.1:1", "priority": 0, "votes": 0})
        config["version"] += 1
        client.admin.command({"replSetReconfig": config, "force": True})
    assert "has 2 members, a restored one has one" in str(member("localhost")["msg"])

    text = juju_db.conf_path.read_text(encoding="utf-8")
    line = next(one for one in text.splitlines() if one.startswith("statepassword:"))
    juju_db.conf_path.write_text(text.replace(line, "statepassword: wrong"), encoding="utf-8")
    assert "refused user machine-0" in str(member("localhost")["msg"])
    juju_db.run(["systemctl", "stop"])
    monkeypatch.setattr(replica_set, "ANSWER_SECONDS", 0.1)
    assert "does not answer" in str(member("localhost")["msg"])


def test_a_member_that_does_not_become_primary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        class admin:  # noqa: N801
            @staticmethod
            def command(_: str) -> dict[str, bool]:
                return {"ismaster": False}

    monkeypatch.setattr(replica_set, "PRIMARY_SECONDS", 0.2)
    with pytest.raises(JujuDrError, match="not PRIMARY after"):
        replica_set._wait_primary(Client)
