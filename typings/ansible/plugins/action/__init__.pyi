from typing import Any

class ActionBase:
    _task: Any
    _connection: Any
    _templar: Any
    _loader: Any
    def run(self, tmp: Any = ..., task_vars: dict[str, Any] | None = ...) -> dict[str, Any]: ...
    def _execute_module(
        self,
        module_name: str | None = ...,
        module_args: dict[str, Any] | None = ...,
        *,
        task_vars: dict[str, Any] | None = ...,
        wrap_async: bool = ...,
    ) -> dict[str, Any]: ...
    def _low_level_execute_command(self, cmd: str, sudoable: bool = ..., in_data: bytes | None = ...) -> dict[str, Any]: ...
    def _remote_expand_user(self, path: str) -> str: ...
