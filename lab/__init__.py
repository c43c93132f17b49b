"""The lab; on the control machine the code that is shared with managed hosts is found here, in a host by PYTHONPATH."""

from __future__ import annotations

from pathlib import Path

_SHARED = Path(__file__).resolve().parent.parent / "module_utils"
if _SHARED.is_dir():
    import ansible.module_utils

    if str(_SHARED) not in ansible.module_utils.__path__:
        ansible.module_utils.__path__.append(str(_SHARED))
