"""The module that loads hands over what it is given, tells what was loaded, and changes nothing in check mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import juju_mongo_load
import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.load import LoadReport

from lab import modules

ARGUMENTS = {"source": "/unpacked", "agent_conf": "/agent.conf", "machine_id": "0", "mongo_common": "/common"}


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return modules.call(capsys, "juju_mongo_load", **{**ARGUMENTS, **arguments})


def test_what_was_loaded_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    handed: list[Any] = []

    def load(*arguments: Any) -> LoadReport:
        handed.extend(arguments)
        return LoadReport([{"ns": "juju.machines", "documents": 3, "bytes": 2586}], oplog_applied=2, elapsed=1.5)

    monkeypatch.setattr(juju_mongo_load, "load_into_juju_db", load)
    result = call(capsys, progress=str(tmp_path / "told.json"))
    assert handed[:5] == ["/unpacked", "/agent.conf", "0", "/common", "snap.juju-db.daemon"]
    assert (result["changed"], result["documents"], result["bytes"], result["oplog_applied"]) == (True, 3, 2586, 2)
    assert not list(tmp_path.glob("told*"))


def test_check_mode_only_says_that_it_would(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(juju_mongo_load, "load_into_juju_db", lambda *_: pytest.fail("it loads"))
    assert call(capsys, _ansible_check_mode=True)["changed"]


def test_an_error_is_told_with_its_cure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> LoadReport:
        raise JujuDrError("/common/db holds a database", "Set it aside first; nothing was loaded")

    monkeypatch.setattr(juju_mongo_load, "load_into_juju_db", refuse)
    result = call(capsys)
    assert result["failed"]
    assert result["msg"] == "/common/db holds a database. Set it aside first; nothing was loaded."
