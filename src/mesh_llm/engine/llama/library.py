"""The door to llama.cpp's C API: finds the shared library, and lets nobody use one of another build.

Counterpart: `declarations.py` says what is called and how. Only engine children come here: llama.cpp aborts
its process on bad input. Calls release the interpreter's lock.
"""

import ctypes
import importlib.util
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared

VARIABLE = "MESH_LLM_LIBLLAMA"
"""In the environment: the path of a libllama of the same build, for GPUs that the wheel knows nothing of."""

STANDARD_LIBRARY = "libstdc++.so.6"

PACKAGE = "xllamacpp"
SUFFIXES = (".so", ".dylib", ".pyd")


class Library:
    """Functions of llama.h, ggml.h and ggml-backend.h by their names: `library.llama_decode(...)`.

    Make one in a process, with `load_library`, and never let go of it: models and contexts point into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        handle = _open(path)
        for name, (result, *arguments) in declared.FUNCTIONS.items():
            setattr(self, name, _bound(handle, path, name, result, arguments))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def load_library(environment: Mapping[str, str]) -> Library:
    """Find, check and start it. Raises EngineFailed where there is none, or one of another build."""
    own = environment.get(VARIABLE)
    if own:
        _put_in_front(STANDARD_LIBRARY)
    library = Library(Path(own) if own else find_wheel())
    check(library)
    library.llama_log_set(_log, None)
    library.llama_backend_init()
    if own:
        library.ggml_backend_load_all_from_path(str(library.path.parent).encode())
    if library.ggml_backend_dev_count() == 0:
        raise EngineFailed(
            f"{library.path} computes on no device: put its libggml-*.so files beside it, or unset {VARIABLE}"
        )
    return library


def find_wheel() -> Path:
    """The shared library of the installed wheel, which is not imported. Raises EngineFailed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in sorted(Path(folder).iterdir()) if path.suffix in SUFFIXES]
    if not found:
        raise EngineFailed(f"the engine is not installed: pip install {declared.WHEEL}")
    return found[0]


def _put_in_front(name: str) -> None:
    """For all lookups of this process. A build for CUDA has pieces of the C++ library inside libggml-cuda;
    where libllama finds those before the real ones, its first regular expression crashes."""
    with suppress(OSError):  # a system without it has a build that does not need it
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _open(path: Path) -> ctypes.CDLL:
    """With its libggml siblings opened first where its own search path does not name them."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        if "libgomp" in str(error):
            raise EngineFailed(str(error)) from error  # explained to people by whoever started us
        first = error
    _open_siblings(path)
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        raise EngineFailed(
            f"the engine's library cannot be loaded: {first}: pip install {declared.WHEEL}, or let "
            f"{VARIABLE} name the libllama of a build of llama.cpp {declared.RELEASE}"
        ) from first


def _open_siblings(path: Path) -> None:
    """Each needs others of them in an order that only they know, so each gets as many tries as there are."""
    left = [sibling for sibling in sorted(path.parent.glob("libggml*")) if sibling.is_file()]
    for _ in range(len(left)):
        left = [sibling for sibling in left if not _opened(sibling)]


def _opened(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _bound(handle: ctypes.CDLL, path: Path, name: str, result: Any, arguments: list[Any]) -> Any:
    """The loader looks in what the library itself is linked to as well, so ggml may be another file."""
    try:
        function = getattr(handle, name)
    except AttributeError:
        raise _of_another_build(path, f"it has no {name}") from None
    function.restype, function.argtypes = result, arguments
    return function


def check(library: Library) -> None:
    """Refuse what is not the build that `declarations.py` describes, before any of its structs is used.

    Versions are the same for many builds; defaults, field by field, tell where a field has moved.
    """
    found = (library.llama_version(), library.ggml_version())
    if found != (declared.LLAMA_VERSION, declared.GGML_VERSION):
        raise _of_another_build(library.path, f"its versions are {found[0]!r} and {found[1]!r}")
    _check_defaults(library, library.llama_model_default_params().asked_for, declared.MODEL_DEFAULTS)
    _check_defaults(library, library.llama_context_default_params().asked_for, declared.CONTEXT_DEFAULTS)
    traits = library.ggml_get_type_traits(declared.KV_TYPES["q8_0"]).contents
    if (traits.type_name, traits.blck_size, traits.type_size) != (b"q8_0", 32, 34):
        raise _of_another_build(library.path, "its table of number types is laid out differently")


def _check_defaults(library: Library, parameters: Any, expected: Mapping[str, float | bool]) -> None:
    """Fields that are not expected are pointers, and null."""
    for name, _ in parameters._fields_:
        value = getattr(parameters, name)
        good = _is_close(value, expected[name]) if name in expected else not value
        if not good:
            raise _of_another_build(library.path, f"the default of {name} is {value}")


def _is_close(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-6)


def _of_another_build(path: Path, why: str) -> EngineFailed:
    return EngineFailed(
        f"{path} is not llama.cpp {declared.RELEASE}, or keeps its functions to itself as the Windows wheel "
        f"does ({why}): pip install {declared.WHEEL}, or unset {VARIABLE}"
    )


class _Log:
    """Errors to standard error, where the parent looks for reasons; the rest is dropped."""

    def __init__(self) -> None:
        self._is_error = False

    def __call__(self, level: int, text: bytes | None, _user: object) -> None:
        if level != declared.LOG_CONTINUED:
            self._is_error = level == declared.LOG_ERROR
        if self._is_error and text:
            sys.stderr.write(text.decode("utf-8", "replace"))
            sys.stderr.flush()


_log = declared.LogCallback(_Log())
"""Kept for ever: the library calls it until the process ends."""
