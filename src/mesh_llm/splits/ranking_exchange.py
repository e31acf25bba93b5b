"""Rankings of experts on RANKING streams: asked of members, answered by who has one.

What comes is hostile until it is checked: the length while it comes, against what such a mixture can need;
then each layer and each expert, by `models.experts.ranking_files`. Which members may have one is not known
here.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from mesh_llm.core.errors import ModelDamaged
from mesh_llm.core.experts import ExpertRanking, ExpertShape
from mesh_llm.core.ids import NodeId
from mesh_llm.mesh import bounded
from mesh_llm.mesh.transport import Kind, PeerError, Stream, Unreachable
from mesh_llm.models.experts.ranking_files import decode_ranking, encode_ranking, ranking_bytes_max
from mesh_llm.splits.holder_link import Open

WISH_BYTES_MAX = 1024

PIECE_BYTES = 256 * 1024
"""Of an answer, in one frame."""

ASK_SECONDS_MAX = 30.0
"""One member, until its ranking is here: some megabytes at most, and who has one gives it at once."""

ANSWER_SECONDS_MAX = 2 * ASK_SECONDS_MAX

STREAMS_OF_PEER_MAX = 4
"""At once: who asks needs one a model."""

Find = Callable[[str], ExpertRanking | None]
"""By the identity of a model's files; None where this node has no ranking of it."""


class RankingWish(msgspec.Struct, frozen=True, kw_only=True):
    """Asker, first and only."""

    model: Annotated[str, Meta(min_length=8, max_length=128, pattern=r"^[0-9a-f]+\Z")]


async def ranking_from(
    node: NodeId, open_stream: Open, identity: str, shape: ExpertShape, seconds_max: float = ASK_SECONDS_MAX
) -> ExpertRanking:
    """Raises Unreachable, also where it takes too long; Refused where the member has none; PeerError where
    what it sends is none."""
    try:
        async with asyncio.timeout(seconds_max), open_stream(node, Kind.RANKING) as stream:
            return await _ask(stream, identity, shape)
    except TimeoutError:
        raise Unreachable(f"it brought no ranking within {seconds_max:g} s") from None


async def _ask(stream: Stream, identity: str, shape: ExpertShape) -> ExpertRanking:
    """Takes as long as the peer does."""
    await stream.send(bounded.encode(RankingWish(model=identity)))
    await stream.finish()
    bytes_max = ranking_bytes_max(shape)
    text = bytearray()
    while (frame := await stream.receive()) is not None:
        if len(text) + len(frame) > bytes_max:
            raise PeerError(f"A ranking of more than {bytes_max} bytes: such a model's has fewer.")
        text += frame
    try:
        return decode_ranking(bytes(text), identity, shape)
    except ModelDamaged as error:
        raise PeerError(f"A ranking that is none: {error}") from None


class RankingServer:
    """Gives rankings to members: each is encoded once, and kept for who asks next."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._texts: dict[str, tuple[str, bytes]] = {}
        """Of each identity the ranking's digest, and its text."""
        self._open: Counter[NodeId] = Counter()

    def __repr__(self) -> str:
        return f"<RankingServer {self._open.total()} streams>"

    async def answer(self, stream: Stream) -> None:
        """Raises Unreachable, also where the asker is too slow; PeerError."""
        if self._open[stream.peer] >= STREAMS_OF_PEER_MAX:
            await stream.refuse(
                f"{STREAMS_OF_PEER_MAX} rankings are being sent already: wait for one of them."
            )
            return
        self._open[stream.peer] += 1
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await self._answer(stream)
        except TimeoutError:
            raise Unreachable(f"a ranking was not taken within {ANSWER_SECONDS_MAX:g} s") from None
        finally:
            self._open[stream.peer] -= 1
            if not self._open[stream.peer]:
                del self._open[stream.peer]

    async def _answer(self, stream: Stream) -> None:
        frame = await stream.receive() or b""
        wish = bounded.decode(frame, RankingWish, bytes_max=WISH_BYTES_MAX, what="A wish for a ranking")
        ranking = self._find(wish.model)
        if ranking is None:
            await stream.refuse("This node has no ranking of that model's experts.")
            return
        text = self._text(wish.model, ranking)
        for start in range(0, len(text), PIECE_BYTES):
            await stream.send(text[start : start + PIECE_BYTES])
        await stream.finish()

    def _text(self, identity: str, ranking: ExpertRanking) -> bytes:
        digest, text = self._texts.get(identity, ("", b""))
        if digest != ranking.digest:
            text = encode_ranking(identity, ranking).encode()
            self._texts[identity] = (ranking.digest, text)
        return text
