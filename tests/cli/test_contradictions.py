import pytest

from mesh_llm.cli.arguments import parser
from mesh_llm.cli.contradictions import refuse_contradictions
from mesh_llm.core.errors import RequestRefused


def check(line: str) -> None:
    refuse_contradictions(parser({}).parse_args(line.split()))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--client --model m", ["--client", "--model"]),
        ("--client --endpoint http://localhost:1", ["--client", "--endpoint"]),
        ("--client --max-vram 8", ["--client", "--max-vram"]),
        ("--client --device CPU", ["--client", "--device"]),
        ("--client --ctx-size 4096", ["--client", "--ctx-size"]),
        ("--split --join t", ["--split", "--model"]),
        ("--stages 3", ["--stages", "--model"]),
        ("--model m --split experts --stages 2", ["--split experts", "--stages"]),
        ("--model m --split layers --moe-layout best", ["--split experts", "--moe-layout"]),
        ("--model m --stages 2 --moe-layout best", ["--split experts", "--moe-layout"]),
        ("--model m --moe-layout shared", ["--moe-layout", "--split experts"]),
        ("--moe-quality 1.2 --join t", ["--moe-quality", "--model"]),
        ("--model m --split layers --moe-quality 1.2", ["--moe-quality", "--split"]),
        ("--model m --split experts --moe-quality 1.2", ["--moe-quality", "--split"]),
        ("--ephemeral --join t", ["--ephemeral", "--client"]),
        ("--client --ephemeral", ["--ephemeral", "--join TOKEN"]),
        ("--relay https://r --mesh-relay none", ["--relay", "--mesh-relay none"]),
    ],
)
def test_flags_that_contradict_each_other_are_refused_with_both_names(line: str, words: list[str]):
    with pytest.raises(RequestRefused) as refused:
        check(line)
    assert refused.value.exit_code == 2
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--client",
        "--model m --split --stages 3 --activations f16",
        "--model m --split layers --stages 2",
        "--model m --split experts --moe-layout shared",
        "--model m --moe-quality 1.2",
        "--client --join t --ephemeral",
        "--model m --endpoint http://localhost:1 --max-vram 8 --join t",
        "--relay https://r --relay https://s",
        "--mesh-relay none",
    ],
)
def test_what_makes_sense_is_let_through(line: str):
    check(line)
