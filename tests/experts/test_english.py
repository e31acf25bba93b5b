import random

from tests.experts.english import Half, docstrings, reads_as_english, vocabulary


def test_english_that_nobody_has_calibrated_with_reads_as_english():
    lines = [line for line in docstrings(Half.HELD_OUT).split("\n\n") if len(line.split()) > 30][:50]
    assert sum(map(reads_as_english, lines)) > 45


def test_what_broken_models_say_does_not():
    chance = random.Random(1)
    letters = " ".join("".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(30))
    for text in (
        "",
        letters,
        "the the the the the the the the the the the the",
        "The C L P T R A B D E S M O G N I J F V U S T K W Y C C C US Q Roman",
        " strugg necessit enthus elig authent fost her neighb comprom noqa aven Municip Town acknowled",
    ):
        assert not reads_as_english(text), text


def test_the_vocabulary_holds_no_letters_that_are_no_words():
    assert {"the", "a", "function"} <= vocabulary() and not {"x", "n"} & vocabulary()
