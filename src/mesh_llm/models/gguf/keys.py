"""Metadata asked by name: `keys.number("block_count")` is `llama.block_count` of a Llama.

Strangers fill in headers, so a value of the wrong kind or size is ModelDamaged here and nowhere else.
"""

from collections.abc import Mapping

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.models.gguf.contents import Skipped, Value

NUMBER_MAX = 2**32 - 1
"""llama.cpp keeps all of them in 32 bits."""


class Keys:
    """The metadata of one model. `name` is what messages call it."""

    def __init__(self, name: str, metadata: Mapping[str, Value]) -> None:
        self.name = name
        self._metadata = metadata
        self.architecture = self._required_text("general.architecture")

    def damaged(self, what: str) -> ModelDamaged:
        return ModelDamaged(f"{self.name} is no model that can be served: {what}. Fetch the model again.")

    def text(self, key: str) -> str | None:
        """By its full name; None where it is missing or too long to be kept."""
        value = self._metadata.get(key)
        return value if isinstance(value, str) else None

    def general_number(self, key: str) -> int | None:
        value = self._metadata.get(key)
        return None if value is None else self._checked(key, value)

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._metadata

    def is_array(self, key: str) -> bool:
        return isinstance(self._metadata.get(f"{self.architecture}.{key}"), tuple)

    def number(self, key: str, default: int = 0) -> int:
        """A count or a length; of an array its largest."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        if value is None:
            return default
        if isinstance(value, tuple):
            return max((self._checked(key, entry) for entry in value), default=default)
        return self._checked(key, value)

    def required_number(self, key: str) -> int:
        if not self.has(key):
            raise self.damaged(f"its header lacks `{self.architecture}.{key}`")
        return self.number(key)

    def per_layer(self, key: str, layers: int, default: int = 0) -> tuple[int, ...]:
        """One number for all layers, or an array with one for each."""
        value = self._metadata.get(f"{self.architecture}.{key}")
        if not isinstance(value, tuple):
            return (self.number(key, default),) * layers
        if len(value) < layers:
            raise self.damaged(f"`{self.architecture}.{key}` has {len(value)} entries for {layers} layers")
        return tuple(self._checked(key, entry) for entry in value[:layers])

    def count(self, key: str) -> int:
        """Entries of an array, kept or not; 0 where it is missing."""
        value = self._metadata.get(key)
        if isinstance(value, Skipped):
            return value.count
        return len(value) if isinstance(value, tuple) else 0

    def _required_text(self, key: str) -> str:
        value = self.text(key)
        if not value:
            raise self.damaged(f"its header lacks `{key}`")
        return value

    def _checked(self, key: str, value: Value) -> int:
        if isinstance(value, int) and 0 <= value <= NUMBER_MAX:
            return int(value)
        raise self.damaged(f"`{key}` should be a number from 0 to {NUMBER_MAX}")
