"""What stops a loading server before mongod is asked, and what a host looks like afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.loading_server import ASIDE, CONFIG, SOCKET_FOLDER, loading_server, log_tail

REAL = "dbpath = /db\njournal = true\nreplSet = juju\n"


def test_a_path_that_no_socket_has_room_for_is_named(tmp_path: Path) -> None:
    common = tmp_path / ("x" * 120)
    common.mkdir()
    (common / CONFIG).write_text(REAL, encoding="utf-8")
    with pytest.raises(JujuDrError, match="too long for a unix socket"):
        with loading_server(str(common), "juju-db", lambda _: pytest.fail("nothing is run")):
            pass
    assert (common / CONFIG).read_text(encoding="utf-8") == REAL


def test_a_unit_that_does_not_start_is_named_and_its_configuration_put_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    common = tmp_path_factory.mktemp("c")
    (common / CONFIG).write_text(REAL, encoding="utf-8")
    asked: list[str] = []

    def run(command: list[str]) -> tuple[int, str, str]:
        asked.append(command[1])
        return (1, "", "Unit juju-db not found.\n") if command[1] == "start" else (0, "", "")

    with pytest.raises(JujuDrError, match="juju-db does not start for loading: Unit juju-db not found"):
        with loading_server(str(common), "juju-db", run, journal=False):
            pass
    assert [verb for verb in asked if verb in ("start", "stop")] == ["start", "stop"]
    assert (common / CONFIG).read_text(encoding="utf-8") == REAL
    assert not (common / ASIDE).exists()
    assert not (common / SOCKET_FOLDER).exists()


def test_a_configuration_without_a_log_has_none() -> None:
    assert log_tail(REAL) == "no log"
    assert log_tail("logpath = /nowhere/at/all\n") == "no log"
