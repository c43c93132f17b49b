"""What is said of a MongoDB that cannot be reached, and how soon."""

from __future__ import annotations

import socket
import time

import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.mongo import MongoAccess, connect


def test_where_nobody_listens_nobody_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(JujuDrError, match=rf"MongoDB at 127\.0\.0\.1:{port} does not answer: .*refused"):
        connect(MongoAccess(port=port), timeout_seconds=60)
    assert time.monotonic() - begun < 30
