"""What an origin says of a file before any of it is fetched, and whether two sayings mean the same bytes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its origin describes it."""

    url: str
    """Of these very bytes, where the origin names a commit."""
    bytes: int | None
    sha256: str | None
    etag: str | None
    """Strong ones only: a weak one does not promise the same bytes."""
    last_modified: str | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may carry. None where the SHA-256 is known: it judges better, and storage servers
        behind the hub have validators of their own."""
        return None if self.sha256 else self.etag or self.last_modified

    def same_bytes(self, other: "RemoteFile") -> bool:
        """Whether a transfer begun on `other` may go on with this one."""
        if self.sha256 or other.sha256:
            return self.sha256 == other.sha256
        known = self.validator is not None and self.bytes is not None
        return known and (self.url, self.bytes, self.validator) == (other.url, other.bytes, other.validator)
