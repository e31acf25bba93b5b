"""A llama-server whose last layers run on RPC servers: `python -m bench.split.rpc_engine PLUGIN PORT...`.

It is told and tells what `mesh_llm.engine.whole.child` is and does.
"""

import sys
from pathlib import Path

from bench.split.rpc_plugin import use_servers
from mesh_llm.engine.whole import child

if __name__ == "__main__":
    use_servers(Path(sys.argv[1]), [int(port) for port in sys.argv[2:]])
    sys.exit(child.main())
