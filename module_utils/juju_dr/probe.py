"""Is anything answering where an old controller machine was, and is it this controller."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Sequence

from .endpoints import split_endpoint
from .errors import JujuDrError

# All at once: what is silent costs its whole time-out, and a controller of seven machines has some seventy endpoints.
WORKERS = 128
# Both names stand in Juju's server certificates.
SERVER_NAME = "juju-apiserver"
SAME = "TLS certificate signed by this controller's CA"
OTHER_CA = "something else answers: TLS with another CA"
NO_TLS = "something else answers: no TLS"
MUTE = "something accepts connections there and says nothing: it cannot be told what it is"
# X509_V_FLAG_NO_CHECK_TIME: a dead certificate, or a wrong clock on either side, makes it no other controller.
# X509_V_FLAG_PARTIAL_CHAIN: the controller's own certificate is believed by itself, whoever signed it.
_WHATEVER_THE_TIME = 0x200000 | 0x80000


@dataclass(frozen=True)
class Answer:
    """One endpoint that answered.

    :param endpoint: as it was asked for.
    :param address: the address that answered; a name may have several.
    :param own: the address is of the host that asked.
    """

    endpoint: str
    address: str
    port: int
    same_controller: bool
    own: bool
    detail: str


class _Shown(Enum):
    """How a handshake ended, by what is known of the other side's certificate."""

    BELIEVED = 1
    NOT_BELIEVED = 2
    UNKNOWN = 3
    MUTE = 4


def probe(endpoints: Sequence[str], ca_cert: str, server_cert: str, timeout: float) -> list[Answer]:
    """Asks every endpoint at once, every address of a name; silence is no answer.

    A refused connection answers at once; a silent one takes the whole time-out, for a lost SYN is sent again after 1 s only,
    and a neighbour that does not exist is known to be none after 3 s.

    :param endpoints: ``host:port``; loopback ones are passed over: they are this host, not an old one.
    :param ca_cert: the controller's CA certificate, PEM.
    :param server_cert: its server certificate, PEM; may be empty.
    :param timeout: seconds for each connection.
    :raises JujuDrError: a certificate cannot be read.
    """
    trusted = ca_cert + "\n" + server_cert
    try:
        _context(trusted)
    except ssl.SSLError as error:
        raise JujuDrError(
            f"The controller's certificates cannot be read: {error}", "Use the certificates of agent.conf"
        ) from error
    with ThreadPoolExecutor(WORKERS) as workers:
        found = [one for some in workers.map(_resolve, dict.fromkeys(endpoints)) for one in some]
        answers = workers.map(lambda target: _ask(target, trusted, timeout), found)
    return [answer for answer in answers if answer is not None]


def _resolve(endpoint: str) -> list[tuple[str, str, int]]:
    host, port = split_endpoint(endpoint)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    addresses = dict.fromkeys(str(one[4][0]) for one in found)
    return [(endpoint, address, port) for address in addresses if not _is_loopback(address)]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _ask(target: tuple[str, str, int], trusted: str, timeout: float) -> Answer | None:
    endpoint, address, port = target
    try:
        with socket.create_connection((address, port), timeout) as connection:
            # The kernel takes the address itself as the sender's only where it is this host's.
            own = connection.getsockname()[0] == connection.getpeername()[0]
    except OSError:
        return None
    same, detail = _whose(address, port, trusted, timeout)
    return Answer(endpoint, address, port, same, own, detail)


def _whose(address: str, port: int, trusted: str, timeout: float) -> tuple[bool, str]:
    shown = _handshake(address, port, _context(trusted), timeout)
    if shown is _Shown.UNKNOWN:
        # TLS 1.2 with a client certificate demanded: the server's was accepted, ours was missed, and ssl does not tell the
        # first. Who believes nobody is told whether a certificate is shown at all.
        if _handshake(address, port, _context(""), timeout) is not _Shown.NOT_BELIEVED:
            return False, NO_TLS
        again = _handshake(address, port, _context(trusted), timeout)
        shown = _Shown.NOT_BELIEVED if again is _Shown.NOT_BELIEVED else _Shown.BELIEVED
    return shown is _Shown.BELIEVED, {_Shown.BELIEVED: SAME, _Shown.NOT_BELIEVED: OTHER_CA, _Shown.MUTE: MUTE}[shown]


def _context(trusted: str) -> ssl.SSLContext:
    """Believes in these certificates and nothing else, and speaks whatever the other side speaks.

    Not the default context: it has rules on strength and form that old controllers' certificates do not keep.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:!aNULL:!eNULL:!PSK:@SECLEVEL=0")
    context.verify_flags |= _WHATEVER_THE_TIME
    if trusted.strip():
        context.load_verify_locations(cadata=trusted)
    return context


def _handshake(address: str, port: int, context: ssl.SSLContext, timeout: float) -> _Shown:
    try:
        with socket.create_connection((address, port), timeout) as connection:
            with context.wrap_socket(connection, server_hostname=SERVER_NAME):
                return _Shown.BELIEVED
    except ssl.SSLCertVerificationError:
        return _Shown.NOT_BELIEVED
    except socket.timeout:
        return _Shown.MUTE
    except OSError:
        return _Shown.UNKNOWN


def api_answers(address: str, port: int, ca_cert: str, timeout: float) -> str:
    """The status line with which the Juju API answers at an address; empty when it does not.

    The certificate must be signed by the controller's CA and be one for Juju's API. Older versions know no ``/health``: any
    HTTP answer counts.
    """
    context = ssl.create_default_context(cadata=ca_cert)
    # Newer Pythons ask for extensions that older controllers' CA certificates do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        with socket.create_connection((address, port), timeout) as connection:
            with context.wrap_socket(connection, server_hostname=SERVER_NAME) as secured:
                secured.sendall(f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                line = secured.recv(256).split(b"\r\n", 1)[0].decode("latin-1")
                return line if line.startswith("HTTP/") else ""
    except OSError:
        return ""
