"""llama.cpp's RPC backend for the wheel that this project uses: built in seconds, for comparison only.

The wheel exports ggml's registry, so a library of two source files of the same release adds RPC to it, as a
client and as a server. Needs a C++ compiler and a package index.
"""

import ctypes
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SOURCES = ("ggml-rpc/ggml-rpc.cpp", "ggml-rpc/transport.cpp")


def build(folder: Path) -> Path:
    """The plugin in `folder`; made there if it is not. Raises CalledProcessError."""
    release = version("xllamacpp")
    target = folder / f"libggml-rpc-{release}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as scratch:
            _compile(_source(release, Path(scratch)), target)
    return target


def load(plugin: Path) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """The engine's library and the plugin, which finds ggml in it."""
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    import xllamacpp

    engine = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("*.so"))))
    rpc = ctypes.CDLL(str(plugin))
    rpc.ggml_backend_rpc_reg.restype = rpc.ggml_backend_rpc_add_server.restype = ctypes.c_void_p
    rpc.ggml_backend_rpc_add_server.argtypes = [ctypes.c_char_p]
    engine.ggml_backend_register.argtypes = [ctypes.c_void_p]
    return engine, rpc


def use_servers(plugin: Path, ports: Sequence[int]) -> None:
    """Each becomes a device of this process, in order."""
    engine, rpc = load(plugin)
    engine.ggml_backend_register(rpc.ggml_backend_rpc_reg())
    for port in ports:
        engine.ggml_backend_register(rpc.ggml_backend_rpc_add_server(b"127.0.0.1:%d" % port))


def serve(plugin: Path, port: int, threads: int) -> None:
    """This machine's CPU, until the process ends."""
    engine, rpc = load(plugin)
    engine.ggml_backend_dev_get.restype = ctypes.c_void_p
    engine.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    engine.ggml_backend_dev_count.restype = ctypes.c_size_t
    count = engine.ggml_backend_dev_count()
    devices = (ctypes.c_void_p * count)(*(engine.ggml_backend_dev_get(place) for place in range(count)))
    start: Any = rpc.ggml_backend_rpc_start_server
    start.restype = None
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start(b"127.0.0.1:%d" % port, None, threads, count, devices)


def _source(release: str, scratch: Path) -> Path:
    """The ggml folder of the wheel's own source package."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*pip, "-d", str(scratch), f"xllamacpp=={release}"], check=True)
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as package:
        package.extractall(
            scratch, [each for each in package if "/llama.cpp/ggml/" in each.name], filter="data"
        )
    return next(scratch.glob("*/thirdparty/llama.cpp/ggml"))


def _compile(ggml: Path, target: Path) -> None:
    flags = ["-O2", "-std=c++17", "-fPIC", "-shared", "-DNDEBUG", "-DGGML_BACKEND_SHARED", "-DGGML_SHARED"]
    places = [f"-I{ggml}/include", f"-I{ggml}/src"]
    files = [str(ggml / "src" / name) for name in SOURCES]
    subprocess.run(["c++", *flags, *places, *files, "-o", str(target)], check=True)
