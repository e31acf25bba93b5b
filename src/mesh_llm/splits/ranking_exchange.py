"""Rankings of experts on RANKING streams: asked of members, answered by who has one.

What comes is hostile until it is checked: the length while it comes, then each layer and each expert, by
`models.experts.ranking_files`. Which members may have one is not known here.
"""

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.mesh import bounded
from mesh_llm.mesh.transport import PeerError, Stream
from mesh_llm.models.experts.ranking_files import RANKING_BYTES_MAX, decode_ranking, encode_ranking

WISH_BYTES_MAX = 1024

PIECE_BYTES = 256 * 1024
"""Of an answer, in one frame."""

Find = Callable[[str], ExpertRanking | None]
"""By the identity of a model's files; None where this node has no ranking of it."""


class RankingWish(msgspec.Struct, frozen=True, kw_only=True):
    """Asker, first and only."""

    model: Annotated[str, Meta(min_length=8, max_length=128, pattern=r"^[0-9a-f]+\Z")]


async def ask_ranking(stream: Stream, identity: str, shape: ExpertShape) -> ExpertRanking:
    """Raises Unreachable, Refused where the peer has none, PeerError where what it sends is none."""
    await stream.send(bounded.encode(RankingWish(model=identity)))
    await stream.finish()
    text = bytearray()
    while (frame := await stream.receive()) is not None:
        if len(text) + len(frame) > RANKING_BYTES_MAX:
            raise PeerError(f"A ranking of more than {RANKING_BYTES_MAX} bytes.")
        text += frame
    try:
        return decode_ranking(bytes(text), identity, shape)
    except ModelDamaged as error:
        raise PeerError(f"A ranking that is none: {error}") from None


async def answer_ranking(stream: Stream, find: Find) -> None:
    """Raises Unreachable, PeerError."""
    frame = await stream.receive() or b""
    wish = bounded.decode(frame, RankingWish, bytes_max=WISH_BYTES_MAX, what="A wish for a ranking")
    ranking = find(wish.model)
    if ranking is None:
        await stream.refuse("This node has no ranking of that model's experts.")
        return
    text = encode_ranking(wish.model, ranking).encode()
    for start in range(0, len(text), PIECE_BYTES):
        await stream.send(text[start : start + PIECE_BYTES])
    await stream.finish()
