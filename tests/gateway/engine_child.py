"""A real engine in its own process, for tests: prints its address once it answers, ends when stdin does."""

import json
import os
import sys

import xllamacpp

settings = json.loads(sys.argv[1])
announce = os.dup(1)

params = xllamacpp.CommonParams()
params.model.path = settings["model"]
params.model_alias = {settings["alias"]}
params.hostnames = ["127.0.0.1"]
params.port = 0
params.api_keys = [settings["api_key"]]
params.n_ctx = settings.get("context", 8192)
params.n_parallel = settings.get("slots", 4)
params.kv_unified = True
params.n_batch = params.n_ubatch = 256
params.cpuparams.n_threads = 2
params.cache_ram_mib = 64
params.embedding = True
params.pooling_type = getattr(
    xllamacpp.llama_pooling_type, "LLAMA_POOLING_TYPE_" + settings.get("pooling", "LAST")
)
params.endpoint_metrics = True
if "chat_template" in settings:
    params.chat_template = settings["chat_template"]
params.verbosity = 1

server = xllamacpp.Server(params)
os.write(announce, (json.dumps({"url": server.listening_address}) + "\n").encode())
sys.stdin.read()
os._exit(0)  # `del server` waits for requests in flight
