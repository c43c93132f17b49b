#!/usr/bin/python
"""Ansible module: counts for a while, or until there is a file MARK.enough, watched."""

from __future__ import annotations

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.progress import attended


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "seconds": {"type": "float", "required": True},
            "patience": {"type": "float", "default": 300},
            "mark": {"type": "path", "required": True},
            "progress": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, watched=module.params["progress"])
    mark = Path(module.params["mark"])
    mark.write_text("begun", encoding="utf-8")
    try:
        with attended(module.params["progress"], module.params["patience"]) as progress:
            ticks = round(module.params["seconds"] * 10)
            progress.expect(bytes=ticks << 20, documents=ticks * 100)
            for _ in range(ticks):
                if mark.with_suffix(".enough").exists():
                    break
                time.sleep(0.1)
                progress.add(bytes=1 << 20, documents=100)
    except JujuDrError as error:
        mark.write_text(str(error), encoding="utf-8")
        module.fail_json(msg=str(error))
    mark.write_text("done", encoding="utf-8")
    # The keys an async job's own result has too.
    module.exit_json(changed=True, started="10:00", finished="10:05", watched=module.params["progress"])


if __name__ == "__main__":
    main()
