"""A llama-server that says what it allocates, for tests that hold predictions against it.

Counterpart: `llama_child.py`, the program that it runs.
"""

import json
import os
import re
import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mesh_llm.planner.fit import Fit

READY_SECONDS_MAX = 60
ANSWER_SECONDS_MAX = 90
MIB = 1024 * 1024


class Engine:
    def __init__(self, process: "subprocess.Popen[str]", url: str, log: Path) -> None:
        self._process = process
        self._url = url
        self._log = log

    def post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX) as answer:
            return json.load(answer)

    def allocated(self, what: str) -> int:
        """Bytes of all its buffers of that name: `KV`, `compute`, `output`, `CPU_REPACK model`."""
        sizes = re.findall(rf"{what} buffer size = +([0-9.]+) MiB", self._log.read_text(encoding="utf-8"))
        return sum(round(float(size) * MIB) for size in sizes)

    def resident(self) -> int:
        """Bytes of RSS, less the second copy of weights that the CPU backend repacks: those mapped pages are
        clean and not read again."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024 - self.allocated("CPU_REPACK model")


@contextmanager
def started(model: Path, plan: Fit, log: Path, *, embeddings: bool = True) -> Iterator[Engine]:
    settings = {
        "model": str(model),
        "context": plan.context,
        "kv_type": plan.kv_type,
        "slots": plan.slots,
        "batch": plan.batch,
        "checkpoints": plan.checkpoints,
        "embeddings": embeddings,
    }
    command = [sys.executable, str(Path(__file__).with_name("llama_child.py")), json.dumps(settings)]
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"GOMP_SPINCOUNT": "0", "GGML_NO_BACKTRACE": "1"},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], READY_SECONDS_MAX)
            url = process.stdout.readline().strip() if ready else ""
            assert url, log.read_text(encoding="utf-8")[-2000:]
            yield Engine(process, url, log)
        finally:
            process.kill()
