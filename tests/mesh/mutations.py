"""What strangers may send: noise, and valid messages with something changed. The same list each time."""

import resource
from collections.abc import Callable, Iterator, Sequence
from random import Random

COUNT = 10_000
GROWTH_KIB_MAX = 32 * 1024


def mutations(corpus: Sequence[bytes], seed: int = 1, count: int = COUNT) -> Iterator[bytes]:
    chance = Random(seed)
    for number in range(count):
        yield chance.randbytes(chance.randrange(200)) if number % 10 == 0 else _mutated(corpus, chance)


def _mutated(corpus: Sequence[bytes], chance: Random) -> bytes:
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[place : place + 1] = chance.randbytes(1)
            case 1:
                del data[place : place + chance.randrange(40)]
            case 2:
                data[place:place] = chance.randbytes(chance.randrange(8))
            case 3:  # a length that promises four billion things, or nesting without end
                data[place : place + 5] = chance.choice(
                    (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 3000)
                )
            case _:
                data[place:place] = chance.choice(corpus)[place : place + 60]
    return bytes(data)


def survives(decode: Callable[[bytes], object], corpus: Sequence[bytes], error: type[Exception]) -> int:
    """How often `decode` raised `error`, which is all it may do. Memory stays flat."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for data in mutations(corpus):
        try:
            decode(data)
        except error:
            refused += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB_MAX
    return refused
