"""Loading llama.cpp in processes of their own: what is refused, and with which cure."""

import ctypes
import ctypes.util
import os
import subprocess
import sys

import pytest

from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama import declarations as declared
from mesh_llm.engine.llama.library import Library, check, find_wheel

LOAD = """
import os, sys
from mesh_llm.core.errors import EngineFailed
from mesh_llm.engine.llama.library import load_library
try:
    print("computes", load_library(os.environ).ggml_backend_dev_count() > 0, "xllamacpp" in sys.modules)
except EngineFailed as error:
    print(error)
"""


def loaded(**environment: str) -> str:
    answer = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return answer.stdout.strip()


@pytest.mark.real
def test_the_wheels_library_is_used_without_importing_the_wheel():
    assert loaded() == "computes True False"


@pytest.mark.real
def test_another_library_of_the_same_build_may_be_named():
    assert loaded(MESH_LLM_LIBLLAMA=str(find_wheel())) == "computes True False"


@pytest.mark.real
def test_a_library_that_is_no_llama_cpp_is_refused_with_the_cure():
    answer = loaded(MESH_LLM_LIBLLAMA=ctypes.util.find_library("c") or "libc.so.6")
    assert "is not llama.cpp b11549" in answer and "it has no llama_version" in answer
    assert "pip install xllamacpp==2026.10.11549, or unset MESH_LLM_LIBLLAMA" in answer


@pytest.mark.real
def test_a_file_that_is_no_library_is_refused_with_the_cure(tmp_path):
    (tmp_path / "libllama.so").write_bytes(b"no library")
    (tmp_path / "libggml.so").write_bytes(b"neither")
    answer = loaded(MESH_LLM_LIBLLAMA=str(tmp_path / "libllama.so"))
    assert "cannot be loaded" in answer and "let MESH_LLM_LIBLLAMA name" in answer


class AnotherBuild(Library):
    """Answers as a library of this build does, but for what a test changes."""

    def __init__(self, changes: dict[str, object]) -> None:
        self.path = find_wheel()
        self.model = declared.ModelParametersWithRoom()
        self.context = declared.ContextParametersWithRoom()
        for parameters, defaults in (
            (self.model, declared.MODEL_DEFAULTS),
            (self.context, declared.CONTEXT_DEFAULTS),
        ):
            for name, value in defaults.items():
                setattr(parameters.asked_for, name, changes.get(name, value))
        self.llama_version = lambda: changes.get("version", declared.LLAMA_VERSION)
        self.ggml_version = lambda: declared.GGML_VERSION
        self.llama_model_default_params = lambda: self.model
        self.llama_context_default_params = lambda: self.context
        traits = declared.TypeTraits(type_name=b"q8_0", blck_size=32, type_size=34)
        self.ggml_get_type_traits = lambda _: ctypes.pointer(traits)


def test_this_build_passes():
    check(AnotherBuild({}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": b"0.7.0"}, "its versions are b'0.7.0'"),
        ({"n_seq_max": 2}, "the default of n_seq_max is 2"),
        ({"yarn_beta_slow": 1.0}, "the default of yarn_beta_slow is 1.0"),
        ({"load_mtp": True}, "the default of load_mtp is True"),
        ({"swa_full": False}, "the default of swa_full is False"),
    ],
)
def test_another_build_is_refused_by_its_versions_or_a_field_that_moved(changes, reason):
    with pytest.raises(EngineFailed, match=reason):
        check(AnotherBuild(changes))


def test_an_inserted_field_moves_others_and_is_refused():
    library = AnotherBuild({})
    moved = bytes(library.context)
    place = declared.ContextParameters.moe_cache_size.offset
    ctypes.memmove(
        ctypes.addressof(library.context), moved[:place] + bytes([1] * 8) + moved[place:], len(moved)
    )
    with pytest.raises(EngineFailed, match="the default of moe_cache_size"):
        check(library)


@pytest.mark.parametrize("defaults", [declared.MODEL_DEFAULTS, declared.CONTEXT_DEFAULTS])
def test_every_field_that_is_no_pointer_has_a_known_default(defaults):
    struct = declared.ModelParameters if defaults is declared.MODEL_DEFAULTS else declared.ContextParameters
    simple = (ctypes.c_int32, ctypes.c_uint32, ctypes.c_float, ctypes.c_bool, ctypes.c_size_t)
    assert {name for name, kind in struct._fields_ if kind in simple} == set(defaults)
