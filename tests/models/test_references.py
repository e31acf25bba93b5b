import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.models.references import (
    HubFile,
    HubRepository,
    LocalPath,
    ModelName,
    Reference,
    all_parts,
    model_stem,
    parse_reference,
    split_name,
)

FILE = "Qwen3-8B-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Qwen3-8B", ModelName("Qwen3-8B")),
        ("Qwen3-8B-Q4_K_M.gguf", ModelName("Qwen3-8B-Q4_K_M.gguf")),
        ("./a.gguf", LocalPath("./a.gguf")),
        ("../a.gguf", LocalPath("../a.gguf")),
        ("/models/a.gguf", LocalPath("/models/a.gguf")),
        ("~/a.gguf", LocalPath("~/a.gguf")),
        ("models/a.gguf", LocalPath("models/a.gguf")),
        ("org/repo", HubRepository("org/repo")),
        ("org/repo:Q4_K_M", HubRepository("org/repo", "Q4_K_M")),
        ("org/repo@v1:Q4_K_M", HubRepository("org/repo", "Q4_K_M", "v1")),
        ("org/repo@refs/pr/3", HubRepository("org/repo", None, "refs/pr/3")),
        (f"org/repo/{FILE}", HubFile("org/repo", FILE)),
        (f"org/repo/Q4/{FILE}", HubFile("org/repo", f"Q4/{FILE}")),
        (f"org/repo/{FILE}@v1", HubFile("org/repo", FILE, "v1")),
        (f"org/repo@v1/{FILE}", HubFile("org/repo", FILE, "v1")),
        (f"https://huggingface.co/org/repo/resolve/main/Q4/{FILE}", HubFile("org/repo", f"Q4/{FILE}")),
        (f"https://huggingface.co/org/repo/resolve/main/{FILE}?download=true", HubFile("org/repo", FILE)),
        (f"https://huggingface.co/org/repo/blob/v2/{FILE}", HubFile("org/repo", FILE, "v2")),
        (f"https://hf.co/org/repo/resolve/refs%2Fpr%2F1/{FILE}", HubFile("org/repo", FILE, "refs/pr/1")),
        (f"https://hf.co/org/repo/resolve/refs/pr/1/{FILE}", HubFile("org/repo", FILE, "refs/pr/1")),
        ("https://huggingface.co/org/repo", HubRepository("org/repo")),
        ("https://huggingface.co/org/repo/tree/main", HubRepository("org/repo")),
        ("hf.co/org/repo:Q8_0", HubRepository("org/repo", "Q8_0")),
        (f"http://mirror.lan:8080/org/repo/resolve/main/{FILE}", HubFile("org/repo", FILE)),
        (f"http://mirror.lan:8080/hf/org/repo/resolve/main/{FILE}", HubFile("org/repo", FILE)),
        (f"org/repo:{FILE}", HubFile("org/repo", FILE)),
        (f"hf.co/org/repo:{FILE}", HubFile("org/repo", FILE)),
        ("  org/repo  ", HubRepository("org/repo")),
    ],
)
def test_each_way_to_name_a_model_is_understood(text: str, meant: Reference) -> None:
    assert parse_reference(text, "http://mirror.lan:8080/hf") == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "org/../repo/x.gguf",
        "org/repo/../../x.gguf",
        "org/repo/a//x.gguf",
        "org/repo/x.gguf\x00.txt",
        "org/repo/\x1b[2Jx.gguf",
        "org/repo@../x.gguf",
        "org/repo:../../etc",
        "org/repo/x.gguf:Q4_K_M",
        "org/repo/model.safetensors",
        "org--x/repo/y.gguf",
        "https://huggingface.co/org/repo/resolve/main/%2e%2e/%2e%2e/x.gguf",
        "https://huggingface.co/org/repo/resolve/main/..%2f..%2fx.gguf",
        "https://huggingface.co/org/repo/resolve/main/a%5c..%5cx.gguf",
        "https://huggingface.co/org/repo/resolve/main/x%00.gguf",
        "https://huggingface.co/datasets/org/repo/resolve/main/x.gguf",
        "https://huggingface.co/org",
        "https://huggingface.co",
        "https://evil.example/org/repo/resolve/main/x.gguf",
        "http://mirror.lan/org/repo/resolve/main/x.gguf",
        "https://huggingface.co:8443/org/repo/resolve/main/x.gguf",
        "https://huggingface.co.evil.example/org/repo/resolve/main/x.gguf",
        "https://user:secret@huggingface.co/org/repo/resolve/main/x.gguf",
        "file:///etc/x.gguf",
        "ftp://huggingface.co/org/repo/resolve/main/x.gguf",
        "https://[::1/x.gguf",
        "a" * 3000,
    ],
)
def test_a_reference_that_is_empty_hostile_or_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(RequestRefused):
        parse_reference(text)


def test_a_refusal_never_repeats_a_password() -> None:
    with pytest.raises(RequestRefused) as refusal:
        parse_reference("https://user:secret@huggingface.co/org/repo/resolve/main/x.gguf")
    assert "secret" not in str(refusal.value)


@given(
    st.text(max_size=80) | st.from_regex(r"(https?://hf\.co/)?[a-z./@:%0-9-]{1,60}(\.gguf)?", fullmatch=True)
)
def test_no_text_makes_a_path_that_leaves_its_folder(text: str) -> None:
    try:
        reference = parse_reference(text)
    except RequestRefused:
        return
    if isinstance(reference, HubFile):
        for place in (reference.repository, reference.path, reference.revision):
            assert not {"", ".", ".."} & set(place.split("/"))
            assert "\\" not in place and place.isprintable()


def test_any_part_of_a_split_file_means_the_whole_set() -> None:
    assert all_parts("Q4/m-00002-of-00003.gguf") == (
        "Q4/m-00001-of-00003.gguf",
        "Q4/m-00002-of-00003.gguf",
        "Q4/m-00003-of-00003.gguf",
    )
    assert all_parts("Q4/m.gguf") == ("Q4/m.gguf",)


@pytest.mark.parametrize(
    "name", ["m-00000-of-00003.gguf", "m-00004-of-00003.gguf", "m-1-of-3.gguf", "m-00001-of-99999.gguf"]
)
def test_a_part_number_that_cannot_be_is_an_ordinary_name(name: str) -> None:
    assert split_name(name) is None
    assert all_parts(name) == (name,)


def test_a_model_is_called_after_its_file_without_the_part() -> None:
    assert model_stem("Q4/m-Q4_K_M-00002-of-00003.gguf") == "m-Q4_K_M"
    assert model_stem("m.Q2_K.gguf-00001-of-00009.gguf") == "m.Q2_K"
    assert model_stem("Qwen2.5-3B.GGUF") == "Qwen2.5-3B"
