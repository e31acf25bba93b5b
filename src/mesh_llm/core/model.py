"""What a model is, as its file says it: the numbers that planning and the API need."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read from a GGUF header (all parts of a split file taken together)."""

    architecture: str
    """The header's own word: `llama`, `qwen3moe`, `gemma3`, ..."""
    parameters: int
    quantisation: str
    """llama.cpp's name of the file type, e.g. `Q4_K_M`; `unknown` where the header does not say."""
    context_length: int
    """Tokens the model was trained for; 0 where the header does not say."""
    embedding_length: int
    vocabulary: int
    weights_bytes: int
    """Sum of all tensors."""
    kv_heads: tuple[int, ...]
    """Per layer; 0 for a layer that keeps no KV cache (recurrent, or none). Its length is the layer count."""
    key_length: int
    """Per head, in elements; for latent attention (MLA) the length of what is cached."""
    value_length: int
    sliding_window: int
    """Tokens that a sliding layer looks back; 0 where the model has no such layers."""
    sliding_layers: tuple[bool, ...]
    recurrent_bytes: int
    """State of all recurrent layers for one sequence; it does not grow with the context."""
    experts: int
    experts_used: int
    chat_template: str | None
    pooling: str | None
    """`mean`, `cls`, `last` or `rank` where the file is an embedding or reranking model, else None."""
    heads: int = 0
    """Attention heads of the widest layer; 0 where there are none."""
    feed_forward_length: int = 0
    """Elements of the widest layer for one token, all experts used; 0 where the header does not say."""
    key_length_sliding: int = 0
    """Per head, in sliding layers; 0: as in the others."""
    value_length_sliding: int = 0
    indexer_length: int = 0
    """Elements that sparse attention caches beside each layer's keys; 0 where the model has none."""

    @property
    def layers(self) -> int:
        return len(self.kv_heads)
