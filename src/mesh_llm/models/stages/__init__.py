"""Stage files: a range of layers cut out of a GGUF, from any source of bytes."""
