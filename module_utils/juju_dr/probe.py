"""Is anything answering at an old controller address, and is it this controller."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Sequence

WORKERS = 16
# Both names stand in Juju's server certificates.
SERVER_NAME = "juju-apiserver"
SAME = "TLS certificate signed by this controller's CA"
OTHER_CA = "something else answers: TLS with another CA"
NO_TLS = "something else answers: no TLS"


@dataclass(frozen=True)
class Answer:
    """One address and port that answered."""

    address: str
    port: int
    same_controller: bool
    detail: str


def probe(addresses: Sequence[str], ports: Sequence[int], ca_cert: str, timeout: float) -> list[Answer]:
    """Asks every address and port at once; silence is no answer.

    :param addresses: loopback ones are passed over: they are this host, not an old one.
    :param ca_cert: the controller's CA certificate, PEM.
    :param timeout: seconds for each connection.
    """
    targets = [(address, port) for address in addresses if not _is_loopback(address) for port in ports]
    with ThreadPoolExecutor(WORKERS) as workers:
        answers = workers.map(lambda target: _ask(target[0], target[1], ca_cert, timeout), targets)
    return [answer for answer in answers if answer is not None]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _ask(address: str, port: int, ca_cert: str, timeout: float) -> Answer | None:
    try:
        with socket.create_connection((address, port), timeout):
            pass
    except OSError:
        return None
    trusting = ssl.create_default_context(cadata=ca_cert)
    trusting.check_hostname = False
    if _handshake(address, port, trusting, timeout):
        return Answer(address, port, True, SAME)
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    return Answer(address, port, False, OTHER_CA if _handshake(address, port, blind, timeout) else NO_TLS)


def _handshake(address: str, port: int, context: ssl.SSLContext, timeout: float) -> bool:
    """Whether the server's certificate was accepted. mongod then misses ours, which is its business."""
    with contextlib.suppress(OSError):
        with socket.create_connection((address, port), timeout) as connection:
            try:
                with context.wrap_socket(connection, server_hostname=SERVER_NAME) as secured:
                    return secured.getpeercert(binary_form=True) is not None
            except ssl.SSLCertVerificationError:
                return False
            except ssl.SSLError as error:
                # TLS 1.2: our missing certificate is refused after the server's was accepted.
                return "alert" in str(error).lower()
    return False


def api_answers(address: str, port: int, ca_cert: str, timeout: float) -> str:
    """The status line with which the Juju API answers at an address; empty when it does not.

    The certificate must be signed by the controller's CA and be one for Juju's API. Older versions know no ``/health``: any
    HTTP answer counts.
    """
    context = ssl.create_default_context(cadata=ca_cert)
    try:
        with socket.create_connection((address, port), timeout) as connection:
            with context.wrap_socket(connection, server_hostname=SERVER_NAME) as secured:
                secured.sendall(f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                line = secured.recv(256).split(b"\r\n", 1)[0].decode("latin-1")
                return line if line.startswith("HTTP/") else ""
    except OSError:
        return ""
