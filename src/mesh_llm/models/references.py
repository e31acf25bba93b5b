"""What a person may call a model, turned into a value; a reading of the words alone.

Counterpart: `obtain.py`, which finds the thing. This module touches no disk and no network, so it cannot know
that `a/b/c.gguf` also lies in the current folder: whoever calls it looks there first. References come from
people, requests and web pages, so anything that could climb out of a folder is refused here.
"""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from mesh_llm.core.errors import RequestRefused

DEFAULT_REVISION = "main"
SUFFIX = ".gguf"

HUB = "https://huggingface.co"
HUB_HOSTS = ("huggingface.co", "hf.co", "www.huggingface.co")

REFERENCE_CHARACTERS_MAX = 2048
"""Room for the longest path Linux and macOS take (1,024 bytes) as an escaped URL."""

PARTS_MAX = 9_999
"""Of one split file; the largest models published come in about 250."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_REPOSITORY_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_QUANTISATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Or, as llama.cpp takes it there too, the name of a file."""
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)?", re.IGNORECASE)
_OUTSIDE = ("/", "./", "../", "~")


@dataclass(frozen=True, slots=True)
class LocalPath:
    path: str
    """As written; `~` is not yet resolved."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """To be looked up among what is on disk and in the catalogue."""

    name: str


@dataclass(frozen=True, slots=True)
class HubFile:
    repository: str
    path: str
    """Inside the repository. One part of a split file stands for the whole set."""
    revision: str = DEFAULT_REVISION


@dataclass(frozen=True, slots=True)
class HubRepository:
    repository: str
    quantisation: str | None = None
    revision: str = DEFAULT_REVISION


Reference = LocalPath | ModelName | HubFile | HubRepository


@dataclass(frozen=True, slots=True)
class SplitName:
    """The name of one part of a split file, taken apart: `stem-00002-of-00005.gguf`."""

    stem: str
    index: int
    """From 1."""
    count: int
    suffix: str

    def part(self, index: int) -> str:
        return f"{self.stem}-{index:05d}-of-{self.count:05d}{self.suffix}"


def parse_reference(text: str, endpoint: str = HUB) -> Reference:
    """Reads `text` as a path, a name, a URL of a hub, or its short form.

    Short forms: `org/repo`, `org/repo:Q4_K_M`, `org/repo/folder/file.gguf`, each with `@revision` after the
    repository or at the end. `endpoint` is the URL of the hub in use; its addresses and those of Hugging Face
    mean the same files. Raises RequestRefused.
    """
    text = text.strip()
    _refuse_unprintable(text)
    if text.startswith(_OUTSIDE) or "\\" in text:
        return LocalPath(text)
    if "://" in text:
        return _from_url(text, urlsplit(endpoint))
    first, _, rest = text.partition("/")
    if not rest:
        return ModelName(text.removesuffix("/"))
    if first.lower() in HUB_HOSTS:
        return _from_url(f"https://{text}", urlsplit(endpoint))
    return _from_short_form(text)


def split_name(name: str) -> SplitName | None:
    """Takes the name of a part apart, or None where `name` is no part of a split file."""
    found = _SPLIT.fullmatch(name)
    if found is None:
        return None
    index, count = int(found["index"]), int(found["count"])
    if not 1 <= index <= count <= PARTS_MAX:
        return None
    return SplitName(found["stem"], index, count, found["suffix"] or "")


def all_parts(path: str) -> tuple[str, ...]:
    """Every part of the set that `path` belongs to, in order; `path` alone where it is not split."""
    folder, slash, name = path.rpartition("/")
    part = split_name(name)
    if part is None:
        return (path,)
    return tuple(f"{folder}{slash}{part.part(index)}" for index in range(1, part.count + 1))


def stays_inside(path: str) -> bool:
    """Whether `path` is a plain relative path: nothing in it climbs, is absolute or is unprintable."""
    return not any(_is_hostile(word) for word in path.split("/"))


def model_stem(file_name: str) -> str:
    """What a model is called after its file: without folder, `.gguf` and the number of the part."""
    name = file_name.rpartition("/")[2]
    part = split_name(name)
    if part is not None:
        name = part.stem
    return name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name


def _refuse_unprintable(text: str) -> None:
    if not text:
        raise RequestRefused("The model reference is empty: give a name, a path, a URL or org/repo.")
    if len(text) > REFERENCE_CHARACTERS_MAX:
        raise RequestRefused(
            f"The model reference has {len(text)} characters, at most {REFERENCE_CHARACTERS_MAX} are read: "
            "give a name, a path, a URL or org/repo."
        )
    if _CONTROL.search(text):
        raise RequestRefused(f"The model reference {text!r} holds control characters: leave them out.")


def _from_short_form(text: str) -> Reference:
    if text.lower().endswith(SUFFIX) and text.count("/") == 1 and ":" not in text:
        return LocalPath(text)
    body, quantisation = _without_quantisation(text)
    body, revision = _without_revision(body)
    words = body.split("/")
    repository = _repository(text, words)
    if len(words) == 2:
        return _in_repository(repository, quantisation, revision)
    if quantisation is not None:
        raise RequestRefused(
            f"{text!r} names a file and a quantisation: leave out `:{quantisation}` or the file's name."
        )
    return HubFile(repository, _model_path(text, words[2:]), revision)


def _without_quantisation(text: str) -> tuple[str, str | None]:
    body, colon, quantisation = text.rpartition(":")
    if not colon:
        return text, None
    if not _QUANTISATION.fullmatch(quantisation):
        raise RequestRefused(
            f"{quantisation!r} in {text!r} is no quantisation: write for example org/repo:Q4_K_M."
        )
    return body, quantisation


def _without_revision(text: str) -> tuple[str, str]:
    """`org/repo@v1/file.gguf`, `org/repo/file.gguf@v1` and `org/repo@refs/pr/3` are all in use."""
    before, at, after = text.partition("@")
    if not at:
        return text, DEFAULT_REVISION
    revision, rest = after, ""
    if before.count("/") == 1 and after.lower().endswith(SUFFIX):
        revision, _, rest = after.partition("/")
    _check_words(text, revision.split("/"))
    return (f"{before}/{rest}" if rest else before), revision


def _from_url(text: str, endpoint: SplitResult) -> Reference:
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise RequestRefused(f"{text!r} is no URL: {error}.") from error
    _check_origin(text, url, endpoint)
    path = url.path
    if url.netloc.lower() == endpoint.netloc.lower():
        path = path.removeprefix(endpoint.path.rstrip("/"))
    encoded, quantisation = _without_quantisation(path.strip("/"))
    words = [unquote(word) for word in encoded.split("/")]
    words = words[1:] if words[0] == "models" and len(words) > 2 else words
    repository = _repository(text, words)
    if len(words) == 2:
        return _in_repository(repository, quantisation, DEFAULT_REVISION)
    return _from_page(text, repository, words[2], words[3:])


def _check_origin(text: str, url: SplitResult, endpoint: SplitResult) -> None:
    if url.username is not None or url.password is not None:
        raise RequestRefused(
            "The model's URL holds a user name or password: put the token into HF_TOKEN instead."
        )
    hosts = dict.fromkeys([*HUB_HOSTS, endpoint.netloc.lower()])
    if url.scheme not in ("http", "https") or url.netloc.lower() not in hosts:
        raise RequestRefused(
            f"{text!r} is not on a known hub ({', '.join(hosts)}): download the file yourself and "
            "give its path, or set HF_ENDPOINT to that server."
        )


def _from_page(text: str, repository: str, kind: str, rest: list[str]) -> Reference:
    if kind == "tree" and rest:
        _check_words(text, "/".join(rest).split("/"))
        return HubRepository(repository, revision="/".join(rest))
    if kind not in ("resolve", "blob", "raw") or len(rest) < 2:
        raise RequestRefused(
            f"{text!r} is no model file: give the address of a .gguf file (…/resolve/main/file.gguf) "
            "or of a repository."
        )
    revision_words = 3 if rest[:2] == ["refs", "pr"] else 1
    revision = "/".join(rest[:revision_words])
    _check_words(text, revision.split("/"))
    return HubFile(repository, _model_path(text, rest[revision_words:]), revision)


def _in_repository(repository: str, wanted: str | None, revision: str) -> HubFile | HubRepository:
    """`wanted` stands after the colon: a quantisation, or a file's name."""
    if wanted is not None and wanted.lower().endswith(SUFFIX):
        return HubFile(repository, wanted, revision)
    return HubRepository(repository, wanted, revision)


def _repository(text: str, words: list[str]) -> str:
    organisation, name = words[0], words[1] if len(words) > 1 else ""
    for word in (organisation, name):
        if not _REPOSITORY_WORD.fullmatch(word) or ".." in word or "--" in word:
            raise RequestRefused(
                f"{text!r} names no repository: write org/repo, or ./path for a file of yours."
            )
    return f"{organisation}/{name}"


def _model_path(text: str, words: list[str]) -> str:
    path = "/".join(words)
    _check_words(text, path.split("/"))
    if not path.lower().endswith(SUFFIX):
        raise RequestRefused(
            f"{text!r} is no GGUF file: the name must end in .gguf, other formats are not served."
        )
    return path


def _check_words(text: str, words: list[str]) -> None:
    for word in words:
        if _is_hostile(word):
            raise RequestRefused(f"{text!r} holds the path element {word!r}: leave it out.")


def _is_hostile(word: str) -> bool:
    return word in ("", ".", "..") or "\\" in word or _CONTROL.search(word) is not None
