from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.engine.head.answer_text import AnswerText


def told(pieces: list[bytes], stops: list[str]) -> tuple[list[str], bool]:
    text = AnswerText(stops)
    deltas: list[str] = []
    for piece in pieces:
        deltas.append(text.add(piece))
        if text.stopped:
            return deltas, True
    return [*deltas, text.finish()], False


def test_a_character_is_told_when_its_last_byte_is_there():
    euro = "€".encode()
    assert told([b"a", euro[:1], euro[1:2], euro[2:], b"b"], []) == (["a", "", "", "€", "b", ""], False)


def test_a_stop_string_across_tokens_is_never_told():
    assert told([b"one E", b"N", b"D two"], ["END"]) == (["one ", "", ""], True)


def test_what_only_began_like_a_stop_string_is_told_after_all():
    assert told([b"one E", b"N", b"E two", b" EN"], ["END"]) == (["one ", "", "ENE two", " ", "EN"], False)


def test_the_first_of_several_stop_strings_ends_the_answer():
    assert told([b"abcdef"], ["ef", "cd", ""]) == (["ab"], True)


def test_bytes_that_are_no_text_are_replaced_and_half_a_character_at_the_end_left_out():
    assert told([b"a\xffb", "€".encode()[:2]], []) == (["a�b", "", ""], False)


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_however_an_answer_is_cut_it_is_the_text_before_the_first_stop(text, stops, data):
    raw = text.encode("utf-8", "replace")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    deltas, stopped = told(pieces, stops)
    whole = raw.decode()
    answer = "".join(deltas)
    assert whole.startswith(answer)
    assert not any(stop in answer for stop in stops)
    assert stopped == any(stop in whole for stop in stops)
    if not stopped:
        assert answer == whole
    else:
        assert any(whole[len(answer) :].startswith(stop) for stop in stops)
