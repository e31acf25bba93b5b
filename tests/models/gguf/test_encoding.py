"""What is packed is read again."""

from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.models.gguf.contents import Scalar
from mesh_llm.models.gguf.encoding import pack_key, pack_start, pack_tensor
from mesh_llm.models.gguf.header import read_header
from mesh_llm.models.gguf.tensors import STORAGE_TYPES, TensorInfo
from tests.models.gguf.gguf_bytes import MemorySource

NUMBERS = st.integers(-(2**31), 2**32 - 1)
FLOATS = st.floats(width=32, allow_nan=False)


@given(
    st.one_of(
        st.booleans(),
        NUMBERS,
        FLOATS,
        st.text(max_size=50),
        st.lists(st.booleans(), min_size=1, max_size=20).map(tuple),
        st.lists(NUMBERS, max_size=20).map(tuple),
        st.lists(FLOATS, max_size=20).map(tuple),
        st.lists(st.text(max_size=5), max_size=20).map(tuple),
    )
)
def test_a_key_is_read_as_it_was_packed(value: Scalar | tuple[Scalar, ...]) -> None:
    header = read_header(MemorySource(pack_start(0, 1) + pack_key("a.key", value)))
    assert header.metadata == {"a.key": value}


def test_tensors_are_read_as_they_were_packed() -> None:
    tensors = (
        TensorInfo("a", (64, 3), STORAGE_TYPES[8], 0, 204),
        TensorInfo("b", (5,), STORAGE_TYPES[0], 224, 20),
    )
    content = pack_start(2, 0) + b"".join(map(pack_tensor, tensors))
    assert read_header(MemorySource(content + bytes(1000))).tensors == tensors
