"""The engine's process: `python -m mesh_llm.engine.whole.child`. One door to llama-server.

It reads one line of settings, loads, says where it listens, and serves until its lifeline is cut. To the
parent (`llama_server.py`) it speaks lines on standard output: llama-server's own
`cmd_child_to_router:state:{...}` while it loads, then `ready {"url": ...}`. Its reasons for failing are on
standard error, most of them llama.cpp's, and only there.
"""

import sys
import threading
from typing import Any

from mesh_llm.engine.parent import UNUSABLE, Parent, first_line
from mesh_llm.engine.whole.settings import EngineSettings
from mesh_llm.runtime import lifeline


def main() -> int:
    settings = EngineSettings.from_line(first_line())
    lifeline.hold()
    parent = Parent()  # llama-server turns fd 1 into standard error
    try:
        server = _serve(settings)
    except ImportError as error:  # the wheel is there, a library of the system is not
        print(error, file=sys.stderr)  # noqa: T201
        return UNUSABLE
    except RuntimeError:  # its text is always the same; the reason is on standard error already
        return UNUSABLE
    parent.tell("ready", {"url": server.listening_address})
    threading.Event().wait()  # until the lifeline is cut
    return 0


def _serve(settings: EngineSettings) -> Any:
    """Load the model and listen on a free loopback port. Blocks, and holds the interpreter's lock."""
    import xllamacpp  # here, after the fork of the lifeline: it starts threads

    params = xllamacpp.CommonParams()
    _place(params, settings)
    _limit(params, settings, xllamacpp)
    _choose_embeddings(params, settings, xllamacpp)
    return xllamacpp.Server(params)


def _place(params: Any, settings: EngineSettings) -> None:
    params.model.path = settings.model_path
    if settings.projector_path is not None:
        params.mmproj.path = settings.projector_path
    params.model_alias = {settings.name}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings.api_key]
    params.cors_origins = ""  # only the gateway talks to it
    params.n_gpu_layers = settings.gpu_layers
    if settings.device_shares:
        shares = list(settings.device_shares)
        params.tensor_split = shares + [0.0] * (len(params.tensor_split) - len(shares))
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads


def _limit(params: Any, settings: EngineSettings, xllamacpp: Any) -> None:
    params.n_ctx = settings.context_length
    params.n_parallel = settings.slots
    params.kv_unified = True
    params.n_batch = params.n_ubatch = settings.batch
    kv_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{settings.kv_type.upper()}")
    params.cache_type_k = params.cache_type_v = kv_type
    params.cache_ram_mib = settings.prompt_cache_mib
    params.n_ctx_checkpoints = settings.checkpoints
    params.verbosity = 1  # errors only, on standard error: they are the reason of a failure
    params.endpoint_slots = False  # it shows other people's prompts
    params.endpoint_metrics = True


def _choose_embeddings(params: Any, settings: EngineSettings, xllamacpp: Any) -> None:
    """`last` lets a generating model take inputs longer than one batch."""
    params.embedding = settings.embeddings
    if settings.reranking:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    elif settings.embeddings and settings.pooling == "last":
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST


if __name__ == "__main__":
    sys.exit(main())
