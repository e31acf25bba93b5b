from dataclasses import replace
from pathlib import Path

from mesh_llm.core.machine import Device, Machine
from mesh_llm.engine.whole.placement import engine_settings, facts_in_memory, served_model
from mesh_llm.models.library import LocalModel
from mesh_llm.planner.fit import Fit, Wish, fit
from tests.engine.served_model_for_tests import FACTS

GB = 1_000_000_000
LAPTOP = Machine(8, 16 * GB, 14 * GB, ())
CARDS = (Device("CUDA0", "big", 80 * GB, 60 * GB), Device("CUDA1", "small", 24 * GB, 20 * GB))
MODEL = LocalModel("small", (Path("/m/small.gguf"),), 98_362_432, FACTS, None, ("other-name",), (None,))


def fitted() -> Fit:
    return fit(FACTS, 8 * GB, Wish())


def test_without_a_device_nothing_is_offloaded():
    settings = engine_settings(MODEL, fitted(), LAPTOP, (), "key")
    assert (settings.gpu_layers, settings.device_shares, settings.threads) == (0, (), 8)
    assert settings.model_path == "/m/small.gguf" and settings.projector_path is None


def test_only_the_chosen_device_gets_a_share():
    one = Machine(8, 16 * GB, 14 * GB, CARDS[1:])
    settings = engine_settings(MODEL, fitted(), one, CARDS, "key")
    assert (settings.gpu_layers, settings.device_shares) == (-1, (0.0, 1.0))
    both = Machine(8, 16 * GB, 14 * GB, CARDS)
    assert engine_settings(MODEL, fitted(), both, CARDS, "key").device_shares == ()


def test_how_an_embedding_is_pooled_is_left_to_a_file_that_says_it():
    assert engine_settings(MODEL, fitted(), LAPTOP, (), "key").pooling == "last"
    encoder = replace(MODEL, facts=replace(FACTS, pooling="mean"))
    assert engine_settings(encoder, fitted(), LAPTOP, (), "key").pooling is None
    assert engine_settings(
        replace(MODEL, facts=replace(FACTS, pooling="rank")), fitted(), LAPTOP, (), "k"
    ).reranking


def test_what_is_served_is_what_fits():
    served = served_model(MODEL, fitted(), now=1_790_000_000.7)
    assert (served.context_length, served.kv_type, served.slots) == (8192, "f16", 4)
    assert served.created == 1_790_000_000 and served.aliases == ("other-name",)
    assert not served.vision and served.embeddings


def test_a_projector_takes_memory_beside_the_weights(tmp_path: Path):
    eyes = tmp_path / "mmproj.gguf"
    eyes.write_bytes(b"x" * 1000)
    assert facts_in_memory(FACTS, eyes).weights_bytes == FACTS.weights_bytes + 1000
    assert facts_in_memory(FACTS, None) == FACTS
