#!/usr/bin/env bash
# libllama, llama-bench and ggml-rpc-server for CUDA, from the sources inside the engine's own source package:
#   pip download --no-deps --no-binary :all: xllamacpp==VERSION     (folder thirdparty/llama.cpp)
#   bench/gpu/build.sh path/to/llama.cpp build-folder
# Needs nvcc, CMake and Ninja. MESH_LLM_LIBLLAMA=build-folder/bin/libllama.so then names the result.
set -euo pipefail
source=$1 build=$2
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF -DGGML_RPC=ON \
  -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-native}" \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_UI=OFF \
  -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
ninja -C "$build" llama ggml-rpc-server llama-bench
