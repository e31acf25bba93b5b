"""The GGUF format: headers read and bounded, and what they say of a model."""
