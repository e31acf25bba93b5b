"""llama.cpp through its C API: declarations, models, contexts, samplers. Used in child processes only."""
