"""mesh-llm: one OpenAI-compatible API over the machines you have."""

__version__ = "0.1.0"
