"""Make a virtual environment with pip, also where Debian has split `ensurepip` off (package python3-venv).

    python3 scripts/make_venv.py .venv

Standard library only. Without `ensurepip`, pip is fetched from the package index: a wheel of pip can be run
from its zip file. `PIP_INDEX_URL` is respected.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from importlib.util import find_spec
from pathlib import Path

PIP_MAX = 5_000_000
"""A wheel of pip has 1.8 MB."""


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs this may have any Python
        print(
            f"mesh-llm needs Python 3.11 or newer, not {sys.version.split()[0]}: PYTHON=python3.12 make run"
        )
        return 2
    target = Path(sys.argv[1])
    with_pip = find_spec("ensurepip") is not None
    venv.create(target, clear=True, symlinks=os.name != "nt", with_pip=with_pip)
    if not with_pip:
        install_pip(target / "bin" / "python")
    return 0


def install_pip(python: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_pip(Path(folder))
        subprocess.run([python, f"{wheel}/pip", "install", "-q", "--no-index", wheel], check=True)


def fetch_pip(folder: Path) -> Path:
    """The newest wheel of pip that the index has, checked against the index's hash."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    request = urllib.request.Request(index, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urllib.request.urlopen(request) as answer:
        files = json.load(answer)["files"]
    wheels = [
        file for file in files if file["filename"].endswith("-py3-none-any.whl") and not file.get("yanked")
    ]
    newest = max(wheels, key=lambda file: version_of(file["filename"]))
    with urllib.request.urlopen(urllib.parse.urljoin(index, newest["url"])) as answer:
        content = answer.read(PIP_MAX)
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise SystemExit(f"{newest['filename']} from {index} does not match the index's own hash; try again")
    wheel = folder / newest["filename"]
    wheel.write_bytes(content)
    return wheel


def version_of(filename: str) -> tuple[int, ...]:
    """Of a release; anything with letters in it (betas) sorts first."""
    words = filename.split("-")[1].split(".")
    return tuple(int(word) for word in words) if all(word.isdigit() for word in words) else ()


if __name__ == "__main__":
    sys.exit(main())
