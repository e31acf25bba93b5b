from pathlib import Path

import pytest

from mesh_llm.core.errors import ModelNotFound, RequestRefused
from mesh_llm.models.catalogue import (
    BUILT_IN,
    DEFAULT_MODEL,
    Catalogue,
    Experts,
    HubSource,
    IndexSource,
    load_catalogue,
)
from mesh_llm.models.references import HubFile


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def own(folder: Path, text: str) -> Path:
    path = folder / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_it_holds_the_thirty_nine_models_of_the_hub_and_the_two_of_the_package_index(
    catalogue: Catalogue,
) -> None:
    sources = [type(entry.source) for entry in catalogue.entries]
    assert (sources.count(HubSource), sources.count(IndexSource)) == (39, 2)
    assert catalogue.find(DEFAULT_MODEL).name == "SmolLM2-135M-Instruct"


def test_every_draft_is_itself_in_the_catalogue_and_much_smaller(catalogue: Catalogue) -> None:
    drafts = [(entry, catalogue.require(entry.draft)) for entry in catalogue.entries if entry.draft]
    assert len(drafts) == 20
    for entry, draft in drafts:
        assert draft.bytes * 2 < entry.bytes


def test_mixtures_of_experts_carry_their_numbers(catalogue: Catalogue) -> None:
    assert catalogue.find("Qwen3-30B-A3B").experts == Experts(128, 8, 46)
    for entry in catalogue.entries:
        if entry.experts:
            assert entry.experts.used <= entry.experts.least < entry.experts.count


def test_no_two_entries_share_a_name_a_stem_or_a_file(catalogue: Catalogue) -> None:
    for values in (
        [entry.name.lower() for entry in catalogue.entries],
        [entry.stem.lower() for entry in catalogue.entries],
        [str(entry.source) for entry in catalogue.entries],
    ):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Qwen3-8B", "Qwen3-8B-Q4_K_M"),
        ("qwen3-8b-q4_k_m", "Qwen3-8B-Q4_K_M"),
        ("Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M"),
        ("smollm2", "SmolLM2-135M-Instruct"),
        ("gemma-3-270m", "Gemma-3-270M"),
        ("Qwen2.5-32B", "Qwen2.5-32B-Instruct-Q4_K_M"),
        ("mistral-small-24b", "Mistral-Small-3.1-24B-Instruct-Q4_K_M"),
        # the file is called otherwise than the model
        ("Mistral-Small-3.1-24B-Instruct-2503-Q4_K_M", "Mistral-Small-3.1-24B-Instruct-Q4_K_M"),
        ("Llama-4-Scout-17B-16E-Instruct-Q4_K_M", "Llama-4-Scout-Q4_K_M"),
    ],
)
def test_a_model_is_found_by_its_name_its_file_or_some_words(
    catalogue: Catalogue, wanted: str, name: str
) -> None:
    assert catalogue.find(wanted).name == name


def test_every_full_name_and_stem_finds_its_own_entry(catalogue: Catalogue) -> None:
    for entry in catalogue.entries:
        assert catalogue.find(entry.name.upper()) is entry
        assert catalogue.find(entry.stem) is entry


def test_a_size_alone_lists_the_candidates_instead_of_guessing(catalogue: Catalogue) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        catalogue.find("32b")
    for name in ("Qwen3-32B-Q4_K_M", "GLM-4-32B-0414-Q4_K_M", "Qwen2.5-Coder-32B-Instruct-Q4_K_M"):
        assert name in str(refusal.value)


def test_any_part_of_a_split_file_belongs_to_its_entry(catalogue: Catalogue) -> None:
    part = "Qwen3-Coder-Next-Q4_K_M/Qwen3-Coder-Next-Q4_K_M-00003-of-00004.gguf"
    entry = catalogue.of_hub_file("qwen/qwen3-coder-next-gguf", part)
    assert entry is not None and entry.name == "Qwen3-Coder-Next-Q4_K_M"
    assert catalogue.of_hub_file("other/repo", part) is None


def test_a_file_in_the_home_adds_models_and_replaces_those_of_the_same_name(tmp_path: Path) -> None:
    text = """
        [[model]]
        name = "qwen3-8b-q4_k_m"
        repository = "me/mine"
        file = "mine.gguf"
        revision = "v2"
        size_gb = 5
        [[model]]
        name = "New-1B"
        repository = "me/new"
        file = "folder/new.gguf"
        size_gb = 0.5
        projector = "mmproj.gguf"
    """
    catalogue = load_catalogue(own(tmp_path, text))
    assert len(catalogue.entries) == 42
    assert catalogue.find("Qwen3-8B").source == HubSource(HubFile("me/mine", "mine.gguf", "v2"), None)
    assert catalogue.find("New").bytes == 500_000_000


def test_no_file_in_the_home_is_no_matter(tmp_path: Path) -> None:
    assert load_catalogue(tmp_path / "catalogue.toml") == load_catalogue()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model = 3", "begins with"),
        ("[[model", "cannot be read"),
        ("model = [1]", "not a table"),
        ("[[model]]\nname = 'A'", "repository"),
        ("[[model]]\nname = '../A'", "name"),
        ("[[model]]\nname = 'A.gguf'", "does not end"),
        ("[[model]]\nname = 'A'\nrepository = 'a/b'\nfile = '../x.gguf'\nsize_gb = 1", "path element"),
        (
            "[[model]]\nname = 'A'\nrepository = 'a/b'\nfile = 'x.gguf'\nprojector = '../p.gguf'",
            "path",
        ),
        ("[[model]]\nname = 'A'\nrepository = 'a/b'\nfile = 'x.gguf'\nsize_gb = -1", "size_gb"),
        ("[[model]]\nname = 'A'\nrepository = 'a/b'\nfile = 'x.gguf'\nsize_gb = true", "size_gb"),
        (
            "[[model]]\nname = 'A'\nrepository = 'a/b'\nfile = 'x.gguf'\nsize_gb = 1\nexperts = 3",
            "not a table",
        ),
        ("[[model]]\nname = 'A'\nwheels = []\nbytes = 1", "wheels is empty"),
        ("[[model]]\nname = 'A'\nwheels = [{ requirement = 'x>=1', member = 'y' }]", "requirement"),
        ("[[model]]\nname = 'A'\nwheels = [{ requirement = '--index-url=x', member = 'y' }]", "requirement"),
        (
            "[[model]]\nname = 'A'\nwheels = [{ requirement = 'x==1', member = 'y' }]\nbytes = 5",
            "sha256",
        ),
        ("[[model]]\nname = 'A'\nwheels = [{ requirement = 'x==1', member = 'y' }]\nbytes = 0", "bytes"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = own(tmp_path, text)
    with pytest.raises(RequestRefused, match=said) as refusal:
        load_catalogue(path)
    assert str(path) in str(refusal.value)


def test_a_catalogue_that_is_not_text_or_far_too_large_is_refused(tmp_path: Path) -> None:
    path = own(tmp_path, "")
    for content in (b"\xff\xfe", b"#" * 1_000_001):
        path.write_bytes(content)
        with pytest.raises(RequestRefused, match=r"catalogue\.toml"):
            load_catalogue(path)


def test_the_keys_are_explained_in_the_file_that_ships() -> None:
    explanation = BUILT_IN.read_text(encoding="utf-8").partition("[[model]]")[0]
    for key in (
        "name",
        "repository",
        "revision",
        "projector",
        "size_gb",
        "draft",
        "experts",
        "wheels",
        "sha256",
    ):
        assert key in explanation
