"""The `mesh-llm` command: reads the line, runs one verb, turns its failure into a message and a status."""

import asyncio
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from importlib import import_module

from mesh_llm.cli.arguments import parser
from mesh_llm.cli.stopping import INTERRUPTED
from mesh_llm.core.errors import MeshError
from mesh_llm.runtime import logs


def main(argv: list[str] | None = None) -> int:
    arguments = parser(os.environ).parse_args(argv)
    logs.configure(arguments.log_format)
    # A command is a module of its name, imported when asked for: `gpus` need not wait for a web server.
    command = import_module(f"mesh_llm.cli.{(arguments.command or 'serve').replace('-', '_')}")
    run: Callable[[Namespace], Coroutine[None, None, int]] = command.run
    try:
        return asyncio.run(run(arguments))
    except MeshError as error:
        _complain(error, as_json=arguments.log_format == "json")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `mesh-llm models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _complain(error: MeshError, *, as_json: bool) -> None:
    if as_json:
        line = json.dumps({"level": "error", "event": type(error).__name__, "message": str(error)})
    else:
        line = f"mesh-llm: {error}"
    print(line, file=sys.stderr)
