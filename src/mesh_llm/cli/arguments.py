"""The flags and commands of `mesh-llm`: parsing only. Wrong values end with status 2 and the cure."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from mesh_llm import __version__
from mesh_llm.core.quantities import GB

CONTEXT_MIN = 256
"""Less holds no system prompt, and llama.cpp pads to 256 anyway."""

CONTEXT_MAX = 10_000_000
"""Above any model's trained length today."""

SLOTS_MAX = 64
"""Requests at once; the engine allows 256, memory on home machines far fewer."""

DESCRIPTION = "Serve large language models from the machines you have, behind one OpenAI-compatible API."

EXAMPLES = """\
examples:
  mesh-llm --model SmolLM2-135M-Instruct          a small model, for a first try
  mesh-llm --model Qwen3-8B                       a name from the catalogue (mesh-llm download)
  mesh-llm --model unsloth/Qwen3-8B-GGUF:Q4_K_M   any GGUF of the Hugging Face hub
  mesh-llm --model ./my-model.gguf                a file of yours

then point any OpenAI client at http://127.0.0.1:9337/v1
"""


def parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    """Flags win over the environment, the environment over defaults."""
    root = argparse.ArgumentParser(
        prog="mesh-llm",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common()],
        allow_abbrev=False,
    )
    root.set_defaults(
        home=environment.get("MESH_LLM_HOME") or "~/.mesh-llm", log_format="pretty", command="serve"
    )
    root.add_argument("--version", action="version", version=f"mesh-llm {__version__}")
    _add_serving(root, environment)
    _add_machine(root)
    _add_commands(root)
    return root


def _common() -> argparse.ArgumentParser:
    """Flags that stand before or after a command. No defaults here: a command's would hide the root's."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    common.add_argument(
        "--home",
        metavar="DIR",
        help="where this node keeps its own things; two homes are two nodes "
        "(MESH_LLM_HOME, default ~/.mesh-llm)",
    )
    common.add_argument(
        "--log-format", choices=("pretty", "json"), help="lines for people or for programs (default pretty)"
    )
    return common


def _add_serving(root: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    serving = root.add_argument_group("serving")
    serving.add_argument(
        "--model",
        metavar="REF",
        action="append",
        default=[],
        help="a path, a catalogue name, a Hugging Face URL, org/repo[:QUANT] or org/repo/file.gguf; "
        "may be given more than once",
    )
    serving.add_argument("--port", type=_port, default=9337, metavar="N", help="API port (default 9337)")
    serving.add_argument(
        "--console", type=_port, default=3131, metavar="N", help="console port (default 3131)"
    )
    serving.add_argument(
        "--listen-all",
        action="store_true",
        help="answer other machines too, not only this one; needs an API key",
    )
    serving.add_argument(
        "--api-key",
        type=_api_key,
        default=environment.get("MESH_LLM_API_KEY") or None,
        metavar="KEY",
        help="clients must send this key (MESH_LLM_API_KEY)",
    )
    serving.add_argument(
        "--ctx-size",
        type=_whole("tokens", CONTEXT_MIN, CONTEXT_MAX),
        metavar="TOKENS",
        help="context length; default: what the model and the memory allow, at most 65,536",
    )
    serving.add_argument(
        "--parallel",
        type=_whole("requests", 1, SLOTS_MAX),
        default=4,
        metavar="N",
        help="requests answered at once per model; more wait (default 4)",
    )


def _add_machine(root: argparse.ArgumentParser) -> None:
    machine = root.add_argument_group("machine")
    machine.add_argument(
        "--max-vram",
        type=_gigabytes,
        metavar="GB",
        help="memory that models may use, in GB; on a machine without a GPU this is main memory",
    )
    machine.add_argument(
        "--device",
        type=_names,
        default=(),
        metavar="NAME[,NAME]",
        help="compute on these devices only (mesh-llm gpus names them), or CPU",
    )


def _add_commands(root: argparse.ArgumentParser) -> None:
    common = _common()  # not the root's own: `set_defaults` there would reach into it
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    download = commands.add_parser(
        "download", parents=[common], help="fetch models; without a name, list the catalogue"
    )
    download.add_argument("name", nargs="*", help="as with --model")
    download.add_argument("--draft", action="store_true", help="fetch the model's draft model too")
    download.add_argument("--json", action="store_true", help="print JSON")
    models = commands.add_parser(
        "models", parents=[common], help="what is on disk, and whether it fits this machine"
    )
    models.add_argument("--json", action="store_true", help="print JSON")
    gpus = commands.add_parser("gpus", parents=[common], help="what this machine has to compute on")
    gpus.add_argument("--json", action="store_true", help="print JSON")


def home_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.home).expanduser()


def _whole(what: str, low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what} from {low} to {high}")
        return number

    return parse


def _port(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 (any free one) to 65535")
    return int(text)


def _gigabytes(text: str) -> int:
    """Bytes. GB are decimal, as the makers of memory and disks count them."""
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of GB: write for example 16 or 7.5")
    return round(float(text) * GB)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of devices: write for example CUDA0,CUDA1")
    return names


def _api_key(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise argparse.ArgumentTypeError("a key is made of printable ASCII characters without spaces")
    return text
