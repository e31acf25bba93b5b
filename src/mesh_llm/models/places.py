"""Where models are and where they come from, as one value that the command line builds.

Everything else here takes it as an argument; this constructor is the only place that knows the names of the
environment's variables, and it is handed the environment rather than reading it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from mesh_llm.core.errors import RequestRefused
from mesh_llm.models.references import HUB

_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class ModelPlaces:
    store: Path
    """Where downloads go."""
    hub_cache: Path
    """The cache of Hugging Face's own tools: read, never written."""
    own_catalogue: Path
    endpoint: str = HUB
    """Of the hub, without a slash at the end."""
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Where Hugging Face's own log-in leaves the token; read if there is no `token`."""
    offline: bool = False
    proxies: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """By scheme, as `http_proxy` and its kin say; `no` holds the hosts that need none."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], home: Path) -> Self:
        """`home` is this node's own folder. Raises RequestRefused where HF_ENDPOINT is no URL."""
        user = Path(environ.get("HOME") or Path.home())
        hf_home = _folder(
            environ, "HF_HOME", _folder(environ, "XDG_CACHE_HOME", user / ".cache") / "huggingface"
        )
        return cls(
            store=_folder(environ, "MESH_LLM_MODELS", user / ".models"),
            hub_cache=_folder(environ, "HF_HUB_CACHE", hf_home / "hub"),
            own_catalogue=home / "catalogue.toml",
            endpoint=_endpoint(environ.get("HF_ENDPOINT") or HUB),
            token=(environ.get("HF_TOKEN") or "").strip() or None,
            token_file=_folder(environ, "HF_TOKEN_PATH", hf_home / "token"),
            offline=environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE,
            proxies=_proxies(environ),
        )

    @property
    def notes(self) -> Path:
        """Locks and remembered checksums; no model lies there."""
        return self.store / ".mesh-llm"


def _folder(environ: Mapping[str, str], variable: str, otherwise: Path) -> Path:
    return Path(environ[variable]).expanduser() if environ.get(variable) else otherwise


def _endpoint(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.username is not None:
        raise RequestRefused(f"HF_ENDPOINT must be an http(s) URL such as {HUB}, without a password.")
    return text.rstrip("/")


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Lower-case names win, as with curl."""
    found = {name[: -len("_proxy")].lower(): value for name, value in environ.items() if _is_proxy(name)}
    return found | {
        name[: -len("_proxy")]: value for name, value in environ.items() if name.endswith("_proxy")
    }


def _is_proxy(name: str) -> bool:
    return name.lower().endswith("_proxy") and len(name) > len("_proxy")
