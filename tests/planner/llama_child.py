"""Serves one model as the product's own child does, but for its talkative log.

Imports as little as that one: what a process holds is what the tests measure.
"""

import json
import os
import sys
from typing import Any

import xllamacpp


def serve(settings: dict[str, Any]) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = settings["context"]
    params.n_parallel = settings["slots"]
    params.kv_unified = True
    params.n_batch = params.n_ubatch = settings["batch"]
    params.n_ctx_checkpoints = settings["checkpoints"]
    kv_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{settings['kv_type'].upper()}")
    params.cache_type_k = params.cache_type_v = kv_type
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    params.embedding = settings["embeddings"]
    if params.embedding:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    params.verbosity = 4
    parent = os.dup(1)
    server = xllamacpp.Server(params)
    os.write(parent, f"{server.listening_address}\n".encode())
    sys.stdin.read()  # until the test ends, however it ends
    os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
