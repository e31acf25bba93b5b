"""What of the C API of llama.cpp b11549 this program uses: structs and functions as llama.h, ggml.h and
ggml-backend.h declare them. Counterpart: `library.py` binds them and checks that the library agrees.

Another build may insert a field anywhere (`moe_cache_size` came between b11434 and b11549), so nothing of
this may be used on a library that has not been checked.
"""

import ctypes as c

RELEASE = "b11549"
WHEEL = "xllamacpp==2026.10.11549"
LLAMA_VERSION = b"0.6.0-dev"
"""`llama_version()`: LLAMA_VERSION of CMakeLists.txt."""
GGML_VERSION = b"0.26.0"

TENSOR_NAME_BYTES = 64
"""GGML_MAX_NAME of ggml.h."""

SEQUENCES_MAX = 256
"""LLAMA_MAX_SEQ of llama-cparams.h."""

KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}
"""`enum ggml_type` of what a KV cache may be kept in."""

LOG_ERROR, LOG_CONTINUED = 4, 5
"""`enum ggml_log_level`."""

ROPE_TYPES_OF_FOUR_POSITIONS = frozenset({8, 40})
"""LLAMA_ROPE_TYPE_MROPE and _IMROPE: a vector comes with four positions, of time, height, width and more."""

EvalCallback = c.CFUNCTYPE(c.c_bool, c.c_void_p)
"""Of (tensor, is it a question, user data) only the first is taken: all are in registers, and `residual.py`
needs a callable of one argument."""
LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
ProgressCallback = c.CFUNCTYPE(c.c_bool, c.c_float, c.c_void_p)
ToFloat = c.CFUNCTYPE(None, c.c_void_p, c.c_void_p, c.c_int64)


class ModelParameters(c.Structure):
    """llama_model_params"""

    _fields_ = [
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int),
        ("load_mode", c.c_int),
        ("lazy_mode", c.c_int),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", ProgressCallback),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("check_tensors", c.c_bool),
        ("use_extra_bufts", c.c_bool),
        ("no_host", c.c_bool),
        ("no_alloc", c.c_bool),
        ("load_mtp", c.c_bool),
    ]


MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
"""Of `llama_model_default_params` (llama-model.cpp). All pointers are null."""


class ContextParameters(c.Structure):
    """llama_context_params"""

    _fields_ = [
        ("n_ctx", c.c_uint32),
        ("n_batch", c.c_uint32),
        ("n_ubatch", c.c_uint32),
        ("n_seq_max", c.c_uint32),
        ("n_rs_seq", c.c_uint32),
        ("n_outputs_max", c.c_uint32),
        ("n_outputs_max_per_seq", c.c_uint32),
        ("n_threads", c.c_int32),
        ("n_threads_batch", c.c_int32),
        ("ctx_type", c.c_int),
        ("rope_scaling_type", c.c_int),
        ("pooling_type", c.c_int),
        ("attention_type", c.c_int),
        ("flash_attn_type", c.c_int),
        ("rope_freq_base", c.c_float),
        ("rope_freq_scale", c.c_float),
        ("yarn_ext_factor", c.c_float),
        ("yarn_attn_factor", c.c_float),
        ("yarn_beta_fast", c.c_float),
        ("yarn_beta_slow", c.c_float),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        ("cb_eval", EvalCallback),
        ("cb_eval_user_data", c.c_void_p),
        ("type_k", c.c_int),
        ("type_v", c.c_int),
        ("moe_cache_size", c.c_size_t),
        ("abort_callback", c.c_void_p),
        ("abort_callback_data", c.c_void_p),
        ("embeddings", c.c_bool),
        ("offload_kqv", c.c_bool),
        ("no_perf", c.c_bool),
        ("op_offload", c.c_bool),
        ("swa_full", c.c_bool),
        ("kv_unified", c.c_bool),
        ("samplers", c.c_void_p),
        ("n_samplers", c.c_size_t),
        ("ctx_other", c.c_void_p),
    ]


CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_rs_seq": 0,
    "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1,
    "n_threads": 4,
    "n_threads_batch": 4,
    "ctx_type": 0,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "rope_freq_base": 0.0,
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": -1.0,
    "yarn_beta_fast": -1.0,
    "yarn_beta_slow": -1.0,
    "yarn_orig_ctx": 0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "moe_cache_size": 0,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "n_samplers": 0,
}
"""Of `llama_context_default_params` (llama-context.cpp). All pointers are null."""


class Batch(c.Structure):
    """llama_batch"""

    _fields_ = [
        ("n_tokens", c.c_int32),
        ("token", c.c_void_p),
        ("embd", c.c_void_p),
        ("pos", c.c_void_p),
        ("n_seq_id", c.c_void_p),
        ("seq_id", c.c_void_p),
        ("logits", c.c_void_p),
    ]


class TypeTraits(c.Structure):
    """ggml_type_traits"""

    _fields_ = [
        ("type_name", c.c_char_p),
        ("blck_size", c.c_int64),
        ("blck_size_interleave", c.c_int64),
        ("type_size", c.c_size_t),
        ("is_quantized", c.c_bool),
        ("to_float", ToFloat),
        ("from_float_ref", c.c_void_p),
    ]


class TokenData(c.Structure):
    """llama_token_data"""

    _fields_ = [("id", c.c_int32), ("logit", c.c_float), ("p", c.c_float)]


class TokenDataArray(c.Structure):
    """llama_token_data_array"""

    _fields_ = [("data", c.c_void_p), ("size", c.c_size_t), ("selected", c.c_int64), ("sorted", c.c_bool)]


class SamplerChainParameters(c.Structure):
    """llama_sampler_chain_params"""

    _fields_ = [("no_perf", c.c_bool)]


class LogitBias(c.Structure):
    """llama_logit_bias"""

    _fields_ = [("token", c.c_int32), ("bias", c.c_float)]


class WithRoom(c.Structure):
    """The first of fields is the struct asked for. A longer struct of another build, returned by value, then
    overwrites nothing before it is refused."""

    ROOM_BYTES = 512


class ModelParametersWithRoom(WithRoom):
    _fields_ = [("asked_for", ModelParameters), ("room", c.c_uint8 * WithRoom.ROOM_BYTES)]


class ContextParametersWithRoom(WithRoom):
    _fields_ = [("asked_for", ContextParameters), ("room", c.c_uint8 * WithRoom.ROOM_BYTES)]


_pointer, _text, _id, _bool, _float = c.c_void_p, c.c_char_p, c.c_int32, c.c_bool, c.c_float
_u32, _i64, _size = c.c_uint32, c.c_int64, c.c_size_t

FUNCTIONS: dict[str, tuple[object, ...]] = {
    # name: (result, argument, ...)
    "llama_version": (_text,),
    "ggml_version": (_text,),
    "ggml_tensor_overhead": (_size,),
    "llama_log_set": (None, LogCallback, _pointer),
    "llama_backend_init": (None,),
    "llama_max_devices": (_size,),
    "ggml_backend_dev_count": (_size,),
    "ggml_backend_load_all_from_path": (None, _text),
    # models
    "llama_model_default_params": (ModelParametersWithRoom,),
    "llama_model_load_from_file": (_pointer, _text, ModelParameters),
    "llama_model_free": (None, _pointer),
    "llama_model_n_embd": (_id, _pointer),
    "llama_model_n_embd_inp": (_id, _pointer),
    "llama_model_n_layer": (_id, _pointer),
    "llama_model_n_ctx_train": (_id, _pointer),
    "llama_model_n_swa": (_id, _pointer),
    "llama_model_is_recurrent": (_bool, _pointer),
    "llama_model_is_hybrid": (_bool, _pointer),
    "llama_model_rope_type": (_id, _pointer),
    "llama_model_size": (c.c_uint64, _pointer),
    "llama_model_get_vocab": (_pointer, _pointer),
    "llama_model_meta_val_str": (_id, _pointer, _text, _pointer, _size),
    # contexts
    "llama_context_default_params": (ContextParametersWithRoom,),
    "llama_init_from_model": (_pointer, _pointer, ContextParameters),
    "llama_free": (None, _pointer),
    "llama_n_ctx": (_u32, _pointer),
    "llama_n_batch": (_u32, _pointer),
    "llama_n_seq_max": (_u32, _pointer),
    "llama_decode": (_id, _pointer, Batch),
    "llama_synchronize": (None, _pointer),
    "llama_get_logits_ith": (_pointer, _pointer, _id),
    "llama_get_memory": (_pointer, _pointer),
    "llama_memory_clear": (None, _pointer, _bool),
    "llama_memory_seq_rm": (_bool, _pointer, _id, _id, _id),
    "llama_memory_seq_cp": (None, _pointer, _id, _id, _id, _id),
    "llama_memory_seq_pos_min": (_id, _pointer, _id),
    "llama_memory_seq_pos_max": (_id, _pointer, _id),
    # tensors
    "ggml_get_name": (_text, _pointer),
    "ggml_nbytes": (_size, _pointer),
    "ggml_nrows": (_i64, _pointer),
    "ggml_backend_tensor_get": (None, _pointer, _pointer, _size, _size),
    "ggml_backend_tensor_set": (None, _pointer, _pointer, _size, _size),
    "ggml_get_type_traits": (c.POINTER(TypeTraits), c.c_int),
    "ggml_row_size": (_size, c.c_int, _i64),
    # vocabulary
    "llama_vocab_n_tokens": (_id, _pointer),
    "llama_vocab_type": (c.c_int, _pointer),
    "llama_vocab_is_eog": (_bool, _pointer, _id),
    "llama_vocab_is_control": (_bool, _pointer, _id),
    "llama_vocab_bos": (_id, _pointer),
    "llama_vocab_eos": (_id, _pointer),
    "llama_vocab_eot": (_id, _pointer),
    "llama_vocab_get_add_bos": (_bool, _pointer),
    "llama_vocab_get_add_eos": (_bool, _pointer),
    "llama_vocab_get_text": (_text, _pointer, _id),
    "llama_vocab_get_attr": (c.c_int, _pointer, _id),
    "llama_tokenize": (_id, _pointer, _text, _id, _pointer, _id, _bool, _bool),
    "llama_token_to_piece": (_id, _pointer, _id, _pointer, _id, _id, _bool),
    "llama_vocab_get_suppress_tokens": (_pointer, _pointer, c.POINTER(_id)),
    "llama_model_chat_template": (_text, _pointer, _text),
    # samplers
    "llama_sampler_chain_default_params": (SamplerChainParameters,),
    "llama_sampler_chain_init": (_pointer, SamplerChainParameters),
    "llama_sampler_chain_add": (None, _pointer, _pointer),
    "llama_sampler_apply": (None, _pointer, c.POINTER(TokenDataArray)),
    "llama_sampler_accept": (None, _pointer, _id),
    "llama_sampler_reset": (None, _pointer),
    "llama_sampler_clone": (_pointer, _pointer),
    "llama_sampler_free": (None, _pointer),
    "llama_sampler_sample": (_id, _pointer, _pointer, _id),
    "llama_sampler_init_greedy": (_pointer,),
    "llama_sampler_init_dist": (_pointer, _u32),
    "llama_sampler_init_top_k": (_pointer, _id),
    "llama_sampler_init_top_p": (_pointer, _float, _size),
    "llama_sampler_init_min_p": (_pointer, _float, _size),
    "llama_sampler_init_typical": (_pointer, _float, _size),
    "llama_sampler_init_temp": (_pointer, _float),
    "llama_sampler_init_temp_ext": (_pointer, _float, _float, _float),
    "llama_sampler_init_penalties": (_pointer, _id, _id, _float, _float, _float),
    "llama_sampler_init_logit_bias": (_pointer, _id, _id, _pointer),
    "llama_sampler_init_top_n_sigma": (_pointer, _float),
    "llama_sampler_init_xtc": (_pointer, _float, _float, _size, _u32),
    "llama_sampler_init_dry": (_pointer, _pointer, _float, _float, _id, _id, c.POINTER(_text), _size),
    "llama_sampler_init_mirostat": (_pointer, _id, _u32, _float, _float, _id),
    "llama_sampler_init_mirostat_v2": (_pointer, _u32, _float, _float),
    "llama_sampler_init_adaptive_p": (_pointer, _float, _float, _u32),
    "llama_sampler_init_grammar": (_pointer, _pointer, _text, _text),
}
"""Everything that is called. One that is missing is a library of another version, or the Windows wheel,
which exports nothing."""
