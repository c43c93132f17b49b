"""The interlock's eyes, on real sockets with the fixtures' certificates."""

from __future__ import annotations

import datetime
import socket
import ssl
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.agent_conf import AgentConf, parse
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.probe import MUTE, NO_TLS, OTHER_CA, SAME, Answer, api_answers, probe

from lab.bootstrap import Identity, new_identity
from lab.tls import Listener, leaf

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def conf() -> AgentConf:
    with tarfile.open(FIXTURES / "juju-2.9.61-controller-files.tar.gz") as tar:
        content = tar.extractfile("var/lib/juju/agents/machine-0/agent.conf")
        assert content is not None
        return parse(content.read().decode())


@pytest.fixture
def own(conf: AgentConf, tmp_path: Path) -> Path:
    pem = tmp_path / "own.pem"
    pem.write_text(conf.require("controllercert") + conf.require("controllerkey"), encoding="utf-8")
    return pem


@pytest.fixture(scope="module")
def stranger() -> Identity:
    return new_identity()


@pytest.fixture
def other(tmp_path: Path, stranger: Identity) -> Path:
    pem = tmp_path / "other.pem"
    pem.write_text(stranger.cert + stranger.key, encoding="utf-8")
    return pem


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is passed over in earnest; here it stands for the old address."""
    monkeypatch.setattr("ansible.module_utils.juju_dr.probe._is_loopback", lambda _: False)


def ask(conf: AgentConf, port: int, host: str = ADDRESS, timeout: float = 2) -> list[Answer]:
    return probe([f"{host}:{port}"], conf.require("cacert"), conf.require("controllercert"), timeout)


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("demands", [False, True], ids=["api", "mongod"])
def test_this_controller_is_known_by_its_ca(conf: AgentConf, own: Path, tls: ssl.TLSVersion, demands: bool) -> None:
    listener = Listener(own, conf.require("cacert") if demands else None, tls)
    (answer,) = ask(conf, listener.port)
    assert (answer.same_controller, answer.detail, answer.own) == (True, SAME, True)


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("demands", [False, True], ids=["api", "mongod"])
def test_another_ca_is_something_else(conf: AgentConf, other: Path, tls: ssl.TLSVersion, demands: bool) -> None:
    listener = Listener(other, conf.require("cacert") if demands else None, tls)
    (answer,) = ask(conf, listener.port)
    assert (answer.same_controller, answer.detail) == (False, OTHER_CA)


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize(("begins", "ends"), [(-20, -10), (10, 20)], ids=["expired", "not valid yet"])
def test_no_clock_makes_it_another_controller(stranger: Identity, tmp_path: Path, begins: int, ends: int) -> None:
    pem = tmp_path / "dated.pem"
    pem.write_text(leaf(stranger, begins, ends), encoding="utf-8")
    for demands in (None, stranger.ca_cert):
        (answer,) = probe([f"{ADDRESS}:{Listener(pem, demands).port}"], stranger.ca_cert, "", 2)
        assert answer.same_controller


@pytest.mark.usefixtures("reachable")
def test_the_controller_s_own_certificate_is_enough(conf: AgentConf, stranger: Identity, other: Path) -> None:
    """Its CA was exchanged and the archive knows only one of both: the server certificate still tells."""
    endpoint = f"{ADDRESS}:{Listener(other).port}"
    (answer,) = probe([endpoint], conf.require("cacert"), stranger.cert, 2)
    assert answer.same_controller


@pytest.mark.usefixtures("reachable")
def test_what_speaks_no_tls_is_something_else(conf: AgentConf) -> None:
    (answer,) = ask(conf, Listener(None).port)
    assert (answer.same_controller, answer.detail) == (False, NO_TLS)


@pytest.mark.usefixtures("reachable")
def test_a_server_that_refuses_before_it_shows_a_certificate_is_something_else(conf: AgentConf, own: Path) -> None:
    """An alert alone tells nothing: this one comes before any certificate."""
    listener = Listener(own)
    assert listener.context
    listener.context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
    (answer,) = ask(conf, listener.port)
    assert not answer.same_controller


@pytest.mark.usefixtures("reachable")
def test_what_accepts_and_says_nothing_is_told_so(conf: AgentConf) -> None:
    with socket.create_server((ADDRESS, 0)) as mute:
        (answer,) = ask(conf, mute.getsockname()[1], timeout=0.3)
    assert (answer.same_controller, answer.detail) == (False, MUTE)


@pytest.mark.usefixtures("reachable")
def test_silence_is_no_answer(conf: AgentConf) -> None:
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        assert ask(conf, free.getsockname()[1]) == []
    assert ask(conf, 17070, "no-such-host.invalid") == []


@pytest.mark.usefixtures("reachable")
def test_names_and_ipv6_are_asked_too(conf: AgentConf, own: Path) -> None:
    (answer,) = ask(conf, Listener(own, address="::1").port, "[::1]")
    assert (answer.same_controller, answer.address) == (True, "::1")
    assert any(one.same_controller for one in ask(conf, Listener(own).port, "localhost"))


@pytest.mark.usefixtures("reachable")
def test_all_are_asked_at_once(conf: AgentConf) -> None:
    with socket.create_server((ADDRESS, 0), backlog=128) as mute:
        endpoints = [f"127.0.1.{number}:{mute.getsockname()[1]}" for number in range(60)]
        endpoints += [f"{ADDRESS}:{mute.getsockname()[1]}"] * 60
        started = datetime.datetime.now()
        answers = probe(endpoints, conf.require("cacert"), "", 1)
    assert [one.detail for one in answers] == [MUTE]
    assert (datetime.datetime.now() - started).total_seconds() < 4


def test_loopback_is_this_host_and_not_probed(conf: AgentConf, own: Path) -> None:
    port = Listener(own).port
    for host in ("127.0.0.1", "[::1]", "localhost"):
        assert ask(conf, port, host) == []


def test_a_broken_certificate_is_an_error_not_a_silence() -> None:
    with pytest.raises(JujuDrError, match="cannot be read"):
        probe([], "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", 1)


def test_the_api_answers_with_this_controller_s_certificate_only(conf: AgentConf, own: Path, other: Path) -> None:
    ca = conf.require("cacert")
    assert api_answers(ADDRESS, Listener(own).port, ca, 2) == "HTTP/1.1 404 Not Found"
    assert api_answers(ADDRESS, Listener(other).port, ca, 2) == ""
    assert api_answers(ADDRESS, Listener(None).port, ca, 2) == ""
