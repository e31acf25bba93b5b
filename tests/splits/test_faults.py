import pytest

from mesh_llm.mesh.transport import PeerError, Refused, Unreachable
from mesh_llm.splits.faults import one_fault


@pytest.mark.parametrize(
    ("faults", "kind", "words"),
    [
        ([Unreachable("gone"), Unreachable("gone too")], Unreachable, "gone"),
        ([Unreachable("gone"), Refused("no")], Refused, "no"),
        ([Unreachable("gone"), Refused("no"), PeerError("a lie")], PeerError, "a lie"),
        ([ExceptionGroup("", [Unreachable("deep"), Unreachable("too")])], Unreachable, "deep"),
    ],
)
def test_the_worst_of_several_faults_stands_for_all(
    faults: list[Exception], kind: type[Exception], words: str
):
    with pytest.raises(kind, match=f"^{words}$"), one_fault():
        raise ExceptionGroup("several", faults)


def test_a_bug_is_never_hidden_by_a_fault():
    with pytest.raises(ExceptionGroup) as raised, one_fault():
        raise ExceptionGroup("several", [Unreachable("gone"), AssertionError("a bug")])
    assert raised.value.subgroup(AssertionError)


def test_what_is_alone_comes_as_it_is():
    with pytest.raises(Unreachable, match="gone"), one_fault():
        raise Unreachable("gone")
