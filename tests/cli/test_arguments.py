import re
from pathlib import Path

import pytest

from mesh_llm.cli.arguments import home_of, parser
from mesh_llm.cli.serve import settings_of

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def parsed(*argv: str, **environment: str):
    return parser(environment).parse_args(list(argv))


def test_without_flags_the_defaults_are_those_of_the_readme():
    arguments = parsed()
    assert (arguments.port, arguments.console, arguments.parallel) == (9337, 3131, 4)
    assert arguments.model == [] and arguments.command is None
    assert home_of(arguments) == Path("~/.mesh-llm").expanduser()


def test_models_may_be_given_more_than_once():
    assert parsed("--model", "a", "--model", "b").model == ["a", "b"]


def test_flags_win_over_the_environment_and_that_over_defaults():
    variables = {"MESH_LLM_HOME": "/of/environment", "MESH_LLM_API_KEY": "of-environment"}
    assert parsed(**variables).home == "/of/environment"
    assert parsed("--home", "/of/flag", **variables).home == "/of/flag"
    assert parsed("--api-key", "of-flag", **variables).api_key == "of-flag"
    assert parsed(**variables).api_key == "of-environment"


@pytest.mark.parametrize("argv", [["--home", "/h", "models"], ["models", "--home", "/h"]])
def test_home_may_stand_before_or_after_a_command(argv: list[str]):
    assert parsed(*argv).home == "/h"


def test_pruning_deletes_only_when_told_and_json_may_stand_before_or_after_it():
    assert parsed("models").action is None
    assert not parsed("models", "prune").yes and parsed("models", "prune", "--yes").yes
    for argv in (["models", "--json", "prune"], ["models", "prune", "--json"]):
        assert parsed(*argv).json
    assert not parsed("models", "prune").json


def test_memory_is_given_in_decimal_gigabytes():
    assert parsed("--max-vram", "7.5").max_vram == 7_500_000_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", (None, None)),
        ("--split", (0, None)),
        ("--split layers", (0, "layers")),
        ("--split --stages 3", (3, None)),
        ("--split layers --stages 3", (3, "layers")),
        ("--split experts", (None, "experts")),
    ],
)
def test_a_split_may_say_by_what_and_is_one_into_stages_without_a_word(
    line: str, expected: tuple[int | None, str | None]
):
    settings = settings_of(parsed("--model", "m", *line.split()))
    assert (settings.stages, settings.split_by) == expected


def test_a_word_that_is_no_way_to_split_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parsed("--model", "m", "--split", "tensors")
    assert "layers" in capsys.readouterr().err


def test_cuts_of_experts_keep_the_best_unless_said_otherwise():
    assert settings_of(parsed("--model", "m", "--split", "experts")).expert_layout == "best"
    said = settings_of(parsed("--model", "m", "--split", "experts", "--moe-layout", "shared"))
    assert said.expert_layout == "shared"


def test_a_cut_that_nobody_asked_for_must_be_as_good_as_is_said():
    assert settings_of(parsed("--model", "m")).quality_ratio_max == 1.15
    assert settings_of(parsed("--model", "m", "--moe-quality", "1.3")).quality_ratio_max == 1.3
    assert settings_of(parsed("--model", "m", "--moe-quality", "1")).quality_ratio_max == 1


def test_devices_are_a_list():
    assert parsed("--device", "CUDA0, CUDA1").device == ("CUDA0", "CUDA1")


@pytest.mark.parametrize(
    "argv",
    [
        ["--max-vram", "nan"],
        ["--max-vram", "0"],
        ["--device", ","],
        ["--moe-quality", "0.9"],
        ["--moe-quality", "good"],
        ["--moe-quality", "nan"],
        ["--port", "-1"],
    ],
)
def test_nonsense_is_refused_with_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        parsed(*argv)
    assert stopped.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_every_flag_and_command_is_in_the_readme():
    text = parser({}).format_help()
    promised = set(re.findall(r"(--[a-z][a-z-]+)", text))
    assert len(promised) > 10
    assert [flag for flag in sorted(promised) if f"`{flag}" not in README] == []
    for command in ("download", "models", "gpus", "status", "invite", "kick", "drop", "rotate-key"):
        assert f"mesh-llm {command}" in README


def test_the_mesh_s_flags_have_the_promised_defaults():
    arguments = parsed()
    assert (arguments.join, arguments.relay, arguments.endpoint) == ([], [], [])
    assert (arguments.drain, arguments.invite_ttl, arguments.bind_port) == (30, 7 * 86_400, 0)
    assert (arguments.client, arguments.ephemeral, arguments.name) == (False, False, None)
    assert arguments.mesh_relay == "default"


def test_tokens_relays_and_endpoints_may_be_given_more_than_once():
    assert parsed("--join", "a", "--join", "b").join == ["a", "b"]
    assert parsed("--relay", "https://a", "--relay", "http://b:1").relay == ["https://a", "http://b:1"]
    assert parsed("--endpoint", "u", "--endpoint", "v").endpoint == ["u", "v"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("invite", {"command": "invite", "action": None, "once": False, "ttl": None, "json": False}),
        ("invite --once --ttl 12h --json", {"once": True, "ttl": 43_200, "json": True}),
        ("invite revoke abc", {"command": "invite", "action": "revoke", "invite": "abc"}),
        ("kick 0123", {"command": "kick", "node": "0123"}),
        ("drop some/model:Q4", {"command": "drop", "model": "some/model:Q4"}),
        ("rotate-key", {"command": "rotate-key"}),
        ("status --json", {"command": "status", "json": True}),
    ],
)
def test_the_mesh_s_commands_are_read(line: str, expected: dict[str, object]):
    assert vars(parsed(*line.split())).items() >= expected.items()
