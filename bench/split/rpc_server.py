"""This machine's CPU as an RPC server; `BENCH_RPC` has the plugin and the number of threads."""

import json
import os
import socket
import threading
from pathlib import Path

from bench.split.rpc_plugin import serve
from mesh_llm.engine.parent import first_line
from mesh_llm.runtime import lifeline


def main() -> None:
    first_line()
    lifeline.hold()
    plugin, threads = os.environ["BENCH_RPC"].split()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    threading.Thread(target=serve, args=(Path(plugin), port, int(threads)), daemon=True).start()
    while True:  # it says nothing when it listens
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            continue
    os.write(1, f"ready {json.dumps({'port': port})}\n".encode())
    threading.Event().wait()


if __name__ == "__main__":
    main()
