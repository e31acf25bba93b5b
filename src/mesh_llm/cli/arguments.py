"""The flags and commands of `mesh-llm`: parsing only. Wrong values end with status 2 and the cure."""

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from mesh_llm import __version__
from mesh_llm.cli.values import (
    DURATION_SECONDS,
    api_key,
    duration,
    gigabytes,
    machines,
    names,
    node_name,
    port,
    ratio,
    relay,
    whole,
)
from mesh_llm.core.experts import QUALITY_RATIO_MAX
from mesh_llm.core.stages import STAGES_MAX

CONTEXT_MIN = 256
"""Less holds no system prompt, and llama.cpp pads to 256 anyway."""

CONTEXT_MAX = 10_000_000
"""Above any model's trained length today."""

SLOTS_MAX = 64
"""Requests at once; the engine allows 256, memory on home machines far fewer."""

DRAIN_SECONDS_MAX = 3600
"""Whoever wants to wait longer wants to stop by hand."""

DESCRIPTION = "Serve large language models from the machines you have, behind one OpenAI-compatible API."

EXAMPLES = """\
examples:
  mesh-llm --model SmolLM2-135M-Instruct          a small model, for a first try
  mesh-llm --model Qwen3-8B                       a name from the catalogue (mesh-llm download)
  mesh-llm --model unsloth/Qwen3-8B-GGUF:Q4_K_M   any GGUF of the Hugging Face hub
  mesh-llm --model ./my-model.gguf                a file of yours
  mesh-llm --model Qwen3-8B --join TOKEN          the same, in the mesh that printed the token
  mesh-llm --client --join TOKEN                  only use what the mesh serves

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
    _add_splitting(root)
    _add_machine(root)
    _add_mesh(root)
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
    serving.add_argument(
        "--endpoint",
        metavar="URL",
        action="append",
        default=[],
        help="serve the models of an OpenAI-compatible server that runs already (vLLM, Ollama, ...); "
        "its key: MESH_LLM_ENDPOINT_KEY or https://KEY@host; may be given more than once",
    )
    serving.add_argument("--port", type=port, default=9337, metavar="N", help="API port (default 9337)")
    serving.add_argument(
        "--console", type=port, default=3131, metavar="N", help="console port (default 3131)"
    )
    serving.add_argument(
        "--listen-all",
        action="store_true",
        help="answer other machines too, not only this one; needs an API key",
    )
    serving.add_argument(
        "--api-key",
        type=api_key,
        default=environment.get("MESH_LLM_API_KEY") or None,
        metavar="KEY",
        help="clients must send this key (MESH_LLM_API_KEY)",
    )
    _add_sizes(serving.add_argument)
    serving.add_argument(
        "--drain",
        type=whole("seconds", 0, DRAIN_SECONDS_MAX),
        default=30,
        metavar="SECONDS",
        help="when stopped, let requests finish for so long (default 30)",
    )


def _add_sizes(add: Callable[..., argparse.Action]) -> None:
    add(
        "--ctx-size",
        type=whole("tokens", CONTEXT_MIN, CONTEXT_MAX),
        metavar="TOKENS",
        help="context length; default: what the model and the memory allow, at most 65,536",
    )
    add(
        "--parallel",
        type=whole("requests", 1, SLOTS_MAX),
        default=4,
        metavar="N",
        help="requests answered at once per model; more wait (default 4)",
    )


def _add_splitting(root: argparse.ArgumentParser) -> None:
    splitting = root.add_argument_group("splitting", "a model that fits no node runs over several")
    splitting.add_argument(
        "--split",
        nargs="?",
        choices=("layers", "experts"),
        const=True,
        help="cut the models even where one node could hold them: between layers, exactly, into stages that "
        "compute together (the default), or a mixture of experts into one for each node that keeps its best "
        "experts and answers alone, approximately",
    )
    splitting.add_argument(
        "--stages",
        type=whole("stages", 2, STAGES_MAX),
        metavar="N",
        help="into so many, this node's included (default: as few as possible)",
    )
    splitting.add_argument(
        "--activations",
        choices=("auto", "f32", "f16"),
        default="auto",
        help="how hidden states travel: f32 is exact, f16 halves the bytes (default auto: f16 only where a "
        "slow link would make f32 cost more than a tenth of the time)",
    )
    _add_layout(splitting.add_argument)
    splitting.add_argument(
        "--moe-quality",
        type=ratio,
        metavar="RATIO",
        help="a mixture of experts that fits no node, and for which no stages are possible, is served by "
        "each node with its best experts, approximately, if that raises its perplexity to so many times the "
        f"whole model's at most (default {QUALITY_RATIO_MAX:g}; --split experts sets no bound)",
    )


def _add_layout(add: Callable[..., argparse.Action]) -> None:
    add(
        "--moe-layout",
        choices=("best", "shared"),
        help="which experts each node keeps with --split experts: best, as many of the best as it holds; "
        "shared, the better half everywhere and the others dealt out (default best)",
    )


def _add_machine(root: argparse.ArgumentParser) -> None:
    machine = root.add_argument_group("machine")
    machine.add_argument(
        "--max-vram",
        type=gigabytes,
        metavar="GB",
        help="memory that models may use, in GB; on a machine without a GPU this is main memory",
    )
    machine.add_argument(
        "--device",
        type=names,
        default=(),
        metavar="NAME[,NAME]",
        help="compute on these devices only (mesh-llm gpus names them), or CPU",
    )


def _add_mesh(root: argparse.ArgumentParser) -> None:
    mesh = root.add_argument_group("mesh")
    mesh.add_argument(
        "--join",
        metavar="TOKEN",
        action="append",
        default=[],
        help="join the mesh of an invite; given more than once, each is tried in turn",
    )
    mesh.add_argument("--client", action="store_true", help="use the mesh's models, serve none")
    mesh.add_argument(
        "--ephemeral",
        action="store_true",
        help="a client that is a new node at each start: its key stays in memory",
    )
    mesh.add_argument(
        "--name", type=node_name, metavar="NAME", help="what others call this node (default: its host name)"
    )
    mesh.add_argument(
        "--bind-port",
        type=port,
        default=0,
        metavar="N",
        help="port for other nodes, UDP and TCP (default: the last one, or any that is free)",
    )
    mesh.add_argument(
        "--relay",
        type=relay,
        metavar="URL",
        action="append",
        default=[],
        help="a relay of yours, for nodes that cannot reach each other directly; may be given more than once",
    )
    mesh.add_argument(
        "--mesh-relay",
        choices=("default", "none"),
        default="default",
        help="none: use no relay at all, only direct paths (default: public ones, where no --relay is given)",
    )
    mesh.add_argument(
        "--invite-ttl",
        type=duration,
        default=7 * DURATION_SECONDS["d"],
        metavar="DURATION",
        help="how long invites are valid: 30m, 12h, 7d (default 7d)",
    )


def _add_commands(root: argparse.ArgumentParser) -> None:
    common = _common()  # not the root's own: `set_defaults` there would reach into it
    commands = root.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    add = functools.partial(commands.add_parser, parents=[common])
    download = add("download", help="fetch models; without a name, list the catalogue")
    download.add_argument("name", nargs="*", help="as with --model")
    download.add_argument("--draft", action="store_true", help="fetch the model's draft model too")
    _add_json(download)
    _add_models(add, common)
    _add_json(add("gpus", help="what this machine has to compute on"))
    _add_moe(add, common)
    _add_control(add, common)


def _add_models(add: Callable[..., argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    models = add("models", help="what is on disk, and whether it fits this machine")
    _add_json(models)
    actions = models.add_subparsers(title="actions", metavar="ACTION", dest="action")
    prune = actions.add_parser(
        "prune",
        parents=[common],
        help="list stages and unfinished downloads that nobody uses, or delete them",
    )
    prune.add_argument("--yes", action="store_true", help="delete them")
    _add_json(prune, default=argparse.SUPPRESS)  # or it would hide the `--json` before the action


def _add_moe(add: Callable[..., argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    moe = add("moe", help="mixtures of experts that fit no machine: what nodes could hold of them")
    actions = moe.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    analyze = actions.add_parser(
        "analyze", parents=[common], help="whether it can be cut, and which of its experts are best"
    )
    analyze.add_argument("model", metavar="MODEL", help="as with --model")
    analyze.add_argument(
        "--imatrix",
        type=Path,
        metavar="FILE",
        help="rank its experts by an importance matrix that was published with it (GGUF), not by measuring",
    )
    analyze.add_argument("--again", action="store_true", help="rank them anew where a ranking is kept")
    _add_json(analyze)
    plan = actions.add_parser(
        "plan", parents=[common], help="what machines with so much memory would hold of it"
    )
    plan.add_argument("model", metavar="MODEL", help="as with --model")
    plan.add_argument(
        "--nodes", type=machines, required=True, metavar="GB[,GB...]", help="memory for it on each of them"
    )
    plan.add_argument(
        "--speed",
        type=gigabytes,
        default=0,
        metavar="GB",
        help="that each of them reads from memory in a second (default 10)",
    )
    _add_layout(plan.add_argument)
    _add_sizes(plan.add_argument)
    _add_json(plan)


def _add_control(add: Callable[..., argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """The commands that the running node carries out or answers, and the one about its identity."""
    _add_json(add("status", help="the mesh as the running node sees it"))
    invite = add("invite", help="print a new token, or revoke one")
    invite.add_argument("--once", action="store_true", help="for one node only")
    invite.add_argument(
        "--ttl", type=duration, metavar="DURATION", help="30m, 12h, 7d (default: the node's --invite-ttl)"
    )
    _add_json(invite)
    actions = invite.add_subparsers(title="actions", metavar="ACTION", dest="action")
    revoke = actions.add_parser("revoke", parents=[common], help="an invite lets nobody in any more")
    revoke.add_argument("invite", metavar="TOKEN_OR_ID")
    kick = add("kick", help="expel a node from the mesh")
    kick.add_argument("node", metavar="NODE", help="its id, four or more digits of it, or its name")
    drop = add("drop", help="unload a model of this node")
    drop.add_argument("model", metavar="MODEL")
    add("rotate-key", help="make this node a new one: a new key")


def _add_json(command: argparse.ArgumentParser, default: bool | str = False) -> None:
    command.add_argument("--json", action="store_true", default=default, help="print JSON")


def home_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.home).expanduser()
