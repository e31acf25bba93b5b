"""Every limit that is ours, with where its number comes from."""

from mesh_llm.core.quantities import MIB

REQUEST_BODY_BYTES_MAX = 64 * MIB
"""A long context as JSON with a few images; coding agents send 1-5 MiB."""

REQUESTS_WAITING_MAX = 64
"""Per model. More than this waits minutes on a home machine: a 503 is the kinder answer."""
