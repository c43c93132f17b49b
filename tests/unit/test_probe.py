"""The interlock's eyes, on real sockets with the fixtures' certificates."""

from __future__ import annotations

import socket
import ssl
import tarfile
import threading
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.agent_conf import AgentConf, parse
from ansible.module_utils.juju_dr.probe import NO_TLS, OTHER_CA, SAME, api_answers, probe

from lab.bootstrap import new_identity

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
ADDRESS = "127.0.0.1"


@pytest.fixture(scope="module")
def conf() -> AgentConf:
    with tarfile.open(FIXTURES / "juju-2.9.61-controller-files.tar.gz") as tar:
        content = tar.extractfile("var/lib/juju/agents/machine-0/agent.conf")
        assert content is not None
        return parse(content.read().decode())


class Listener:
    """Answers every connection; with TLS when a certificate is given, and as mongod does when it demands one of the client."""

    def __init__(self, pem: Path | None, client_ca: str | None = None, tls: ssl.TLSVersion | None = None) -> None:
        self.socket = socket.create_server((ADDRESS, 0))
        self.port: int = self.socket.getsockname()[1]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if pem else None
        if self.context and pem:
            self.context.load_cert_chain(pem)
            if tls:
                self.context.maximum_version = tls
            if client_ca:
                self.context.verify_mode = ssl.CERT_REQUIRED
                self.context.load_verify_locations(cadata=client_ca)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            try:
                if not self.context:
                    plain.sendall(b"SSH-2.0-something\r\n")
                    continue
                with self.context.wrap_socket(plain, server_side=True) as secured:
                    secured.recv(100)
                    secured.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
            except OSError:
                pass
            finally:
                plain.close()


@pytest.fixture
def own(conf: AgentConf, tmp_path: Path) -> Path:
    pem = tmp_path / "own.pem"
    pem.write_text(conf.require("controllercert") + conf.require("controllerkey"), encoding="utf-8")
    return pem


@pytest.fixture
def other(tmp_path: Path) -> Path:
    identity = new_identity()
    pem = tmp_path / "other.pem"
    pem.write_text(identity.cert + identity.key, encoding="utf-8")
    return pem


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is passed over in earnest; here it stands for the old address."""
    monkeypatch.setattr("ansible.module_utils.juju_dr.probe._is_loopback", lambda _: False)


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("tls", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("demands", [False, True], ids=["api", "mongod"])
def test_this_controller_is_known_by_its_ca(conf: AgentConf, own: Path, tls: ssl.TLSVersion, demands: bool) -> None:
    listener = Listener(own, conf.require("cacert") if demands else None, tls)
    (answer,) = probe([ADDRESS], [listener.port], conf.require("cacert"), 2)
    assert (answer.same_controller, answer.detail) == (True, SAME)


@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize("demands", [False, True], ids=["api", "mongod"])
def test_another_ca_is_something_else(conf: AgentConf, other: Path, demands: bool) -> None:
    listener = Listener(other, conf.require("cacert") if demands else None)
    (answer,) = probe([ADDRESS], [listener.port], conf.require("cacert"), 2)
    assert (answer.same_controller, answer.detail) == (False, OTHER_CA)


@pytest.mark.usefixtures("reachable")
def test_what_speaks_no_tls_is_something_else(conf: AgentConf) -> None:
    (answer,) = probe([ADDRESS], [Listener(None).port], conf.require("cacert"), 2)
    assert (answer.same_controller, answer.detail) == (False, NO_TLS)


@pytest.mark.usefixtures("reachable")
def test_silence_is_no_answer(conf: AgentConf) -> None:
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        assert probe([ADDRESS], [free.getsockname()[1]], conf.require("cacert"), 1) == []


def test_loopback_is_this_host_and_not_probed(conf: AgentConf, own: Path) -> None:
    assert probe(["127.0.0.1", "::1", "localhost"], [Listener(own).port], conf.require("cacert"), 1) == []


def test_the_api_answers_with_this_controller_s_certificate_only(conf: AgentConf, own: Path, other: Path) -> None:
    ca = conf.require("cacert")
    assert api_answers(ADDRESS, Listener(own).port, ca, 2) == "HTTP/1.1 404 Not Found"
    assert api_answers(ADDRESS, Listener(other).port, ca, 2) == ""
    assert api_answers(ADDRESS, Listener(None).port, ca, 2) == ""
