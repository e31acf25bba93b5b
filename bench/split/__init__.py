"""A split model against the whole one and against llama.cpp's own RPC, on one machine."""
