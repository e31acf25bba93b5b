"""What we use of the pinned wheel, which ships no types."""

from typing import Any

class CommonParams:
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

class Server:
    listening_address: str
    def __init__(self, params: CommonParams) -> None: ...

class ggml_type:  # noqa: N801
    def __getattr__(self, name: str) -> Any: ...

class llama_pooling_type:  # noqa: N801
    LLAMA_POOLING_TYPE_LAST: Any
    LLAMA_POOLING_TYPE_RANK: Any

def get_device_info() -> list[dict[str, Any]]: ...
