"""The operating system as this program needs it: time, processes, hardware, logs. Knows nothing of models."""
