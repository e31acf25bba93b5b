"""What the console may ask of the node beside looking: its counterpart, `control.py`, serves it as HTTP.

The node implements it. Each verb raises MeshError with the cure where it cannot be done.
"""

from typing import Protocol


class Verbs(Protocol):
    async def invite(self, *, once: bool, ttl_s: int | None) -> str:
        """A new token; `ttl_s` None means the node's own `--invite-ttl`."""
        ...

    async def revoke(self, text: str) -> None:
        """`text` is a token or an invite's id."""
        ...

    async def kick(self, text: str) -> str:
        """`text` is a node's id, the beginning of one, or its name. Returns who went, for people."""
        ...

    async def drop(self, model: str) -> str:
        """Unloads a model of this node; returns its name, as soon as its engine is gone."""
        ...
