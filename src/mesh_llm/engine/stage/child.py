"""A stage's process: `python -m mesh_llm.engine.stage.child`. Hidden states in, hidden states out.

It reads one line of settings, loads, says that it is ready, and serves one session of the ring after another
on a unix socket until its lifeline is cut. A session that goes wrong ends alone: the next stage is told why,
and the model stays loaded. To the parent (`stage_worker.py`) it says `loading {"fraction": ...}`, then
`ready {...}`; its reasons for failing are on standard error.
"""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import psutil

from mesh_llm.core.errors import DoesNotFit, EngineFailed, MeshError
from mesh_llm.core.quantities import human_bytes
from mesh_llm.engine.llama.context import Context, ContextSettings, rows_of
from mesh_llm.engine.llama.library import load_library
from mesh_llm.engine.llama.model import Model, ModelSettings
from mesh_llm.engine.parent import UNUSABLE, Parent, first_line
from mesh_llm.engine.stage.computing import Stage
from mesh_llm.engine.stage.session import Session
from mesh_llm.engine.stage.settings import StageSettings
from mesh_llm.runtime import hardware, lifeline

ONE = 1
"""Session at a time; another that connects waits until it is over."""


def main() -> int:
    settings = StageSettings.from_line(first_line())
    lifeline.hold()
    parent = Parent()
    try:
        check_memory(settings.memory_bytes, hardware.measure(()).memory_bytes_available)
        stage = load(settings, parent)
        listener = listen(Path(settings.socket_path))
    except (MeshError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return UNUSABLE
    resident = psutil.Process().memory_info().rss
    parent.tell(
        "ready",
        {"socket_path": settings.socket_path, "width": stage.shape.width, "resident_bytes": resident},
    )
    while True:
        connection, _ = listener.accept()
        Session(connection, stage).run()


def check_memory(needed: int, available: int) -> None:
    """Before anything is loaded: llama.cpp takes the KV cache whether or not there is room for it."""
    if needed > available:
        raise DoesNotFit(
            f"the stage needs {human_bytes(needed)} of memory and {human_bytes(available)} are free now: "
            "close other programs, or let the mesh plan anew with less"
        )


def load(settings: StageSettings, parent: Parent) -> Stage:
    """Raises EngineFailed, also for a file that is not the stage that the settings speak of."""
    model_settings = ModelSettings(Path(settings.model_path), settings.gpu_layers, settings.device_shares)
    model = Model(load_library(os.environ), model_settings, parent.tell_loaded)
    check_model(model, settings)
    context = Context(
        model,
        ContextSettings(
            context=settings.context_length,
            batch=settings.batch,
            sequences=settings.sequences,
            threads=settings.threads,
            kv_type=settings.kv_type,
            residual=settings.residual,
            entrance=settings.entrance,
        ),
    )
    prove(context)
    return Stage(context)


def check_model(model: Model, settings: StageSettings) -> None:
    if model.layers != settings.layers:
        raise EngineFailed(f"{settings.model_path} has {model.layers} layers instead of {settings.layers}")
    if model.takes_rows_apart or model.width_in != model.width:
        raise EngineFailed("models of this architecture cannot run as stages")


def prove(context: Context) -> None:
    """One row through all layers: reads the weights, and shows that the residual stream has the name that it
    should have, before anybody counts on this stage."""
    context.decode(rows_of([0]), rows_of([0]), hidden=np.zeros((1, context.model.width), np.float32))
    context.hidden(1)
    context.clear()


def listen(path: Path) -> socket.socket:
    """Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(ONE)
    return listener


if __name__ == "__main__":
    sys.exit(main())
