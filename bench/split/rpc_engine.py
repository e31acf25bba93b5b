"""A llama-server whose last layers run on RPC servers; `BENCH_RPC` has the plugin and their ports.

It is told and tells what `mesh_llm.engine.whole.child` is and does.
"""

import os
import sys
from pathlib import Path

from bench.split.rpc_plugin import use_servers
from mesh_llm.engine.whole import child

if __name__ == "__main__":
    plugin, *ports = os.environ["BENCH_RPC"].split()
    use_servers(Path(plugin), [int(port) for port in ports])
    sys.exit(child.main())
