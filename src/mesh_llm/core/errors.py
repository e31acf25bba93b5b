"""Every way this program says no, told apart by who must act.

A message says what is wrong and what to do about it; it is printed to people and sent to API clients as
it is. `exit_code` is what the command ends with, `http_status` and `kind` what the API answers. What
crosses machines is data, not an exception; a bug is an AssertionError and is caught nowhere.
"""

from enum import StrEnum
from typing import ClassVar


class MeshError(Exception):
    """The base: caught by the command line and by the gateway, raised by nobody."""

    exit_code: int = 1
    kind: ClassVar[str] = "server_error"
    http_status: int = 500
    code: str | None = None


class RequestRefused(MeshError):
    """The caller must change something: a flag, a field, a key."""

    exit_code = 2
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

    exit_code = 3

    def __init__(self, message: str) -> None:
        super().__init__(message, http_status=404, code="model_not_found", parameter="model")


class ModelDamaged(MeshError):
    """The file is broken, truncated, altered or no GGUF: it must be fetched again."""

    exit_code = 4


class DoesNotFit(MeshError):
    """The model needs more memory than there is: a smaller one, a smaller context, or more machines."""

    exit_code = 5


class DownloadFailed(MeshError):
    """The origin refused or the network gave up: the message says which and what helps."""

    exit_code = 6


class AddressInUse(MeshError):
    """Another program holds the port."""

    exit_code = 7


class DiskFull(MeshError):
    """There is no room for the file: something must be deleted or stored elsewhere."""

    exit_code = 8


class EngineFailed(MeshError):
    """Our child died or would not start; the message carries its last words."""

    exit_code = 9
    http_status = 502
    code = "engine_failed"


class Unavailable(MeshError):
    """Not now: loading, restarting or full. Another try after `retry_after_s` seconds may do."""

    http_status = 503
    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InviteFault(StrEnum):
    """Why an invite token did not open the door."""

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    EXPIRED = "expired"
    FOREIGN = "foreign"
    USED = "used"
    REVOKED = "revoked"
    EXPELLED = "expelled"
    UNREACHABLE = "unreachable"


class InviteRefused(MeshError):
    """Somebody must make a new invite, copy the old one whole, or start a node that can be reached."""

    kind: ClassVar[str] = "invalid_request_error"
    http_status = 400

    def __init__(self, fault: InviteFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.code = f"invite_{fault}"
        self.exit_code = INVITE_EXIT_CODES[fault]


INVITE_EXIT_CODES = {fault: 10 + place for place, fault in enumerate(InviteFault)}
"""10 malformed, 11 truncated, 12 expired, 13 foreign, 14 used, 15 revoked, 16 expelled, 17 unreachable."""
