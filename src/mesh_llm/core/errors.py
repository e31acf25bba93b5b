"""Every way this program says no, told apart by who must act.

A message says what is wrong and what to do about it; it is printed to people and sent to API clients as
it is. `exit_code` is what the command ends with, `http_status` and `kind` what the API answers. What
crosses machines is data, not an exception; a bug is an AssertionError and is caught nowhere.
"""

from typing import ClassVar


class MeshError(Exception):
    """The base: caught by the command line and by the gateway, raised by nobody."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "server_error"
    http_status: int = 500
    code: str | None = None


class RequestRefused(MeshError):
    """The caller must change something: a flag, a field, a key."""

    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "invalid_request_error"
    http_status = 400

    def __init__(
        self,
        message: str,
        *,
        http_status: int = 400,
        code: str | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.parameter = parameter


class ModelNotFound(RequestRefused):
    """No such model, or several that fit the name: the caller must name another."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str) -> None:
        super().__init__(message, http_status=404, code="model_not_found", parameter="model")


class ModelDamaged(MeshError):
    """The file is broken, truncated, altered or no GGUF: it must be fetched again."""

    exit_code: ClassVar[int] = 4


class DoesNotFit(MeshError):
    """The model needs more memory than there is: a smaller one, a smaller context, or more machines."""

    exit_code: ClassVar[int] = 5


class DownloadFailed(MeshError):
    """The origin refused or the network gave up: the message says which and what helps."""

    exit_code: ClassVar[int] = 6


class AddressInUse(MeshError):
    """Another program holds the port."""

    exit_code: ClassVar[int] = 7


class DiskFull(MeshError):
    """There is no room for the file: something must be deleted or stored elsewhere."""

    exit_code: ClassVar[int] = 8


class EngineFailed(MeshError):
    """Our child died or would not start; the message carries its last words."""

    exit_code: ClassVar[int] = 9
    http_status = 502
    code = "engine_failed"


class Unavailable(MeshError):
    """Not now: loading, restarting or full. Another try after `retry_after_s` seconds may do."""

    http_status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
