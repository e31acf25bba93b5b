"""What llama.cpp knows about architectures and no header says. Data, read by `layers`.

Source: llama.cpp b11549, `src/models/*.cpp` (`load_arch_hparams` of each), `src/llama-arch.cpp`
(`llm_arch_is_recurrent`, `llm_arch_is_hybrid`) and `llama_model::create_memory` in `src/llama-model.cpp`.
An architecture that is missing here counts as one where every layer remembers everything, which is safe.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SlidingPattern:
    """In each run of `period` layers one sees the whole context and the others a window."""

    period: int
    dense_first: bool = False
    """The layer that sees everything is the first of its run, not the last."""
    window_default: int = 0
    """Where the header names no window; 0: then nothing slides."""
    window_fixed: int = 0
    """The engine takes this one whatever the header says, unless it says 0."""
    layers_only: int = 0
    """Only models of that many layers slide; 0: all."""


SLIDING: dict[str, SlidingPattern] = {
    "afmoe": SlidingPattern(4),
    "cohere2": SlidingPattern(4),
    "cohere2moe": SlidingPattern(4, dense_first=True),
    "exaone-moe": SlidingPattern(4, window_default=128),
    "exaone4": SlidingPattern(4, window_default=4096, layers_only=64),
    "gemma2": SlidingPattern(2, window_default=4096),
    "gemma3": SlidingPattern(6),
    "gemma3n": SlidingPattern(5),
    "gpt-oss": SlidingPattern(2),
    "laguna": SlidingPattern(4, dense_first=True),
    "llama4": SlidingPattern(4, window_default=8192, window_fixed=8192),
    "mellum": SlidingPattern(4),
    "muse-glimmer": SlidingPattern(4),
    "olmo2": SlidingPattern(4),
    "plamo3": SlidingPattern(8),
    "smallthinker": SlidingPattern(4, dense_first=True, window_fixed=4096),
}
"""`load_swa_pattern(ml, period, dense_first)`; a `sliding_window_pattern` in the header comes first."""

SLIDING_BY_HEADER_ALONE = frozenset(
    {"dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"}
)
"""Their header lists for each layer whether it slides; the engine has no pattern of its own."""

SLIDING_WHERE_NOT_RECURRENT = frozenset({"lfm2", "lfm2moe"})

RECURRENT_THROUGHOUT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})

RECURRENT_WHERE_NO_KV_HEADS = frozenset(
    {
        "bailingmoe3",
        "glm5-next",
        "granitehybrid",
        "jamba",
        "kimi-k3",
        "kimi-linear",
        "lfm2",
        "lfm2moe",
        "plamo2",
    }
)

RECURRENT_WHERE_NO_KV_HEADS_NOR_FEED_FORWARD = frozenset({"nemotron_h", "nemotron_h_moe"})

RECURRENT_AND_ATTENTIVE = frozenset({"falcon-h1"})
"""Each layer has both kinds of memory."""

ATTENTION_INTERVAL: dict[str, int] = {
    "minimax-01": 8,
    "qwen35": 4,
    "qwen35moe": 4,
    "qwen3next": 4,
    "qwen4exp": 4,
}
"""Every n-th layer attends, the others are recurrent; `full_attention_interval` goes before these."""

LINEAR_ATTENTION_BY_KEY_LENGTH = frozenset({"minimax-01"})
"""Their recurrent state is one square of `key_length` for each head."""

KV_FROM_START: dict[str, int] = {"gemma3n": 20}
"""Only the first n layers keep a KV cache; the later ones read theirs. gemma4 says so in its header."""

EXTRA_LAYER_OF_ONE_KV_HEAD = frozenset({"graniteswitch"})

WITHOUT_CACHE = frozenset(
    {
        "bert",
        "clef",
        "dream",
        "eurobert",
        "gemma-embedding",
        "gemma-embedding2",
        "jina-bert-v2",
        "jina-bert-v3",
        "llada",
        "llada-moe",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "rnd1",
        "wavtokenizer-dec",
    }
)
"""They read a text in one piece and remember nothing."""

FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}
"""`enum llama_ftype` in llama.h, by `general.file_type`."""

POOLING: dict[int, str] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""`enum llama_pooling_type` in llama.h."""
