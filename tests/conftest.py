"""Make the shared code importable under the names it has on a managed host."""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils
import pytest

ROOT = Path(__file__).resolve().parent.parent
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))


@pytest.fixture(autouse=True)
def own_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Modules that change a host are one at a time there; tests are not."""
    from ansible.module_utils.juju_dr import lock

    monkeypatch.setattr(lock, "FOLDER", tmp_path / "juju-dr")
