import pytest

from mesh_llm.mesh.transport import Connection
from tests.mesh.test_iroh_transport import IrohHarness
from tests.mesh.transport_contract import CONTRACT, Sentence, name_of


class FastHarness(IrohHarness):
    def introduce(self, near: Connection, far: Connection) -> None:
        for here, there in ((near, far), (far, near)):
            offer = there.fast_path
            assert offer is not None
            here.use_fast_path(offer)


@pytest.mark.parametrize("sentence", CONTRACT, ids=name_of)
async def test_with_the_fast_path(sentence: Sentence):
    await sentence(FastHarness())
