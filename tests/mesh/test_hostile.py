"""Every place where bytes from elsewhere become values, in one list: ten thousand random and mutated inputs
at each raise nothing but what it says, and leave memory as it was.

What each decoder takes and refuses is told beside its own tests; here is only that none was forgotten.
"""

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import pytest

from mesh_llm.core.errors import InviteFault, InviteRefused, RequestRefused
from mesh_llm.core.offers import ModelOffer, ServedOffer
from mesh_llm.gateway import tunnel
from mesh_llm.mesh.admission import certificates, invites
from mesh_llm.mesh.admission.hello import Hello, decode_hello, encode_hello
from mesh_llm.mesh.admission.joining import (
    Admitted,
    Declined,
    JoinRequest,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from mesh_llm.mesh.admission.ledger import KnownMember
from mesh_llm.mesh.admission.notices import decode_batch, decode_notice, encode_batches, expulsion, revocation
from mesh_llm.mesh.gossip import exchange, wire
from mesh_llm.mesh.gossip.advert import DOMAIN, Advert, SignedAdvert, read, sign_advert
from mesh_llm.mesh.gossip.exchange import AdvertsWanted, View
from mesh_llm.mesh.gossip.leaving import signed_leave
from mesh_llm.mesh.gossip.messages import Ack, Gossip, Ping, PingReport, PingRequest
from mesh_llm.mesh.gossip.news import Health, News
from mesh_llm.mesh.home.identity import KEY_FILE, load_or_create_key
from mesh_llm.mesh.home.ledger_file import LEDGER_FILE, load_ledger, save_ledger
from mesh_llm.mesh.home.running import RUNNING_FILE, Running, announce, find_running
from mesh_llm.mesh.network.frames import END_FRAME, FrameDecoder, data_frame, refusal_frame
from mesh_llm.mesh.network.tls_identity import TlsIdentity, node_of
from mesh_llm.mesh.transport import Addresses, FastPath, PeerError
from tests.mesh.members import NOW, founder, invite, key, let_in, line
from tests.mesh.mutations import COUNT, mutations

GROWTH_BYTES_MAX = 8 * 1024 * 1024
TRACED = 1000
"""Of the inputs: looking at each allocation takes its time."""

HERE, THERE = key(1), key(2)
MEMBERS = line(1, 2, 3, 4)
GUEST = MEMBERS[-1].certificate
ADDRESSES = Addresses(("192.168.1.5:51234", "[2001:db8::5]:1"), "https://relay.example.org")
FAST = FastPath(("192.168.1.5:40123",), TlsIdentity(THERE.seed).certificate)
LEAVE = signed_leave(HERE, 5)
TLS = TlsIdentity(HERE.seed)
NEWS = (
    News(THERE.node, 3, Health.SUSPECT, 9),
    News(HERE.node, 5, Health.LEFT, 2, LEAVE.signature),
)
OFFERS = (ServedOffer(ModelOffer("a model", ("alias",), 1000), ready=True, tokens_per_second=12.5),)
ADVERT = sign_advert(
    Advert(
        HERE.node, 7, "a name", "0.3.0", "server", ADDRESSES, GUEST, 10**9, OFFERS, ("on disk",), int(NOW)
    ),
    lambda body: HERE.sign(DOMAIN, body),
)
NOTICES = (
    expulsion(HERE, MEMBERS[0].certificate, THERE.node, [key(3).node], NOW),
    revocation(HERE, MEMBERS[0].certificate, bytes(16), NOW),
)
TOKENS = (invite(founder()), invite(MEMBERS[2], once=True))


@dataclass(frozen=True)
class Decoder:
    name: str
    decode: Callable[[bytes], object]
    corpus: Sequence[bytes]
    error: type[Exception]


def frames(data: bytes) -> None:
    """In pieces, as a network brings them."""
    decoder = FrameDecoder()
    for start in range(0, len(data), 97):
        decoder.feed(data[start : start + 97])
        while decoder.next() is not None:
            pass


def fast_path(data: bytes) -> None:
    """As `TlsLinks` reads an offer."""
    if node_of(data) == THERE.node:
        TLS.client_context(data)


def body(data: bytes) -> None:
    """A question's body, cut where the sender likes."""
    reader = tunnel.BodyReader(min(len(data), 300))
    for start in range(0, len(data), 101):
        reader.take(data[start : start + 101])
    if not reader.complete:
        reader.take(None)


DECODERS = [
    Decoder(
        "frames of streams",
        frames,
        [data_frame(b"a payload") + END_FRAME, data_frame(bytes(500)) + refusal_frame("no"), b"\1\0\x10\0\0"],
        PeerError,
    ),
    Decoder(
        "datagrams",
        wire.decode,
        [
            wire.encode(Ping(1, 2, 3, bytes(8), 4, NEWS)),
            wire.encode(Ack(1, 2, 3, bytes(8), 4)),
            wire.encode(PingRequest(1, THERE.node)),
            wire.encode(PingReport(2**63 - 1, THERE.node)),
            wire.encode(Gossip(NEWS)),
        ],
        PeerError,
    ),
    Decoder(
        "frames of gossip",
        exchange.decode,
        [
            exchange.encode(View(NEWS * 10)),
            exchange.encode(AdvertsWanted((HERE.node, THERE.node))),
            exchange.encode(ADVERT),
        ],
        PeerError,
    ),
    Decoder("adverts", lambda data: read(SignedAdvert(data, ADVERT.signature)), [ADVERT.body], PeerError),
    Decoder(
        "hello",
        decode_hello,
        [
            encode_hello(Hello(GUEST, "0.3.0")),
            encode_hello(Hello(GUEST, "0.3.0", FAST, ADDRESSES)),
        ],
        PeerError,
    ),
    Decoder(
        "certificates of the fast path",
        fast_path,
        [FAST.certificate],
        PeerError,
    ),
    Decoder("requests to join", decode_request, [encode_request(JoinRequest(TOKENS[0], "0.3.0"))], PeerError),
    Decoder(
        "answers to them",
        decode_answer,
        [
            encode_answer(Admitted(GUEST, NOTICES, (exchange.encode(ADVERT),))),
            encode_answer(Declined(InviteFault.USED, "no")),
        ],
        PeerError,
    ),
    Decoder("notices", decode_notice, NOTICES, PeerError),
    Decoder("batches of notices", decode_batch, encode_batches(NOTICES), PeerError),
    Decoder("certificates", certificates.verified, [founder().certificate, GUEST], PeerError),
    Decoder(
        "invite tokens",
        lambda data: invites.read(data.decode("latin-1")),
        [token.encode() for token in TOKENS],
        InviteRefused,
    ),
    Decoder(
        "questions of tunnels",
        tunnel.decode_question,
        [tunnel.encode(tunnel.QuestionHead(path="/v1/chat/completions", model="a model", size=7))],
        PeerError,
    ),
    Decoder(
        "answers of tunnels",
        tunnel.decode_answer,
        [
            tunnel.encode(
                tunnel.AnswerHead(status=503, content_type="text/event-stream", retry_after=5, busy=2)
            )
        ],
        PeerError,
    ),
    Decoder("bodies of tunnels", body, [bytes(300), bytes(100)], PeerError),
]


def name_of(decoder: Decoder) -> str:
    return decoder.name


@pytest.mark.parametrize("decoder", DECODERS, ids=name_of)
def test_nothing_that_comes_crashes_a_decoder_or_stays_in_memory(decoder: Decoder):
    hold_against(decoder)


@pytest.mark.parametrize("decoder", DECODERS, ids=name_of)
def test_what_the_list_calls_valid_is(decoder: Decoder):
    for data in decoder.corpus[: 1 if decoder.decode is frames else None]:
        decoder.decode(data)


def test_no_noise_in_the_home_crashes_a_start(tmp_path: Path):
    first = founder()
    guest = let_in(first, 2)
    ledger = first.ledger.with_members((KnownMember(guest.me, guest.certificate, ADDRESSES, int(NOW)),))
    save_ledger(tmp_path, ledger)
    load_or_create_key(tmp_path, Random(1))
    announce(tmp_path, Running(1, 2, 3, "key"))

    def start(file: str, load: Callable[[], object]) -> Decoder:
        path = tmp_path / file

        def decode(data: bytes) -> None:
            path.write_bytes(data)
            load()

        return Decoder(file, decode, [path.read_bytes()], RequestRefused)

    hold_against(start(LEDGER_FILE, lambda: load_ledger(tmp_path, HERE.node)))
    hold_against(start(KEY_FILE, lambda: load_or_create_key(tmp_path, Random(1))))
    hold_against(start(RUNNING_FILE, lambda: find_running(tmp_path)))


def hold_against(decoder: Decoder) -> None:
    """Raises whatever comes out besides the decoder's own error."""
    this = psutil.Process()
    for data in mutations(decoder.corpus, seed=2, count=TRACED):  # what is kept for later is kept by then
        with suppress(decoder.error):
            decoder.decode(data)
    before = this.memory_info().rss
    for data in mutations(decoder.corpus, seed=3, count=COUNT - 2 * TRACED):
        with suppress(decoder.error):
            decoder.decode(data)
    assert this.memory_info().rss - before < GROWTH_BYTES_MAX
    tracemalloc.start()
    try:
        for data in mutations(decoder.corpus, seed=4, count=TRACED):
            with suppress(decoder.error):
                decoder.decode(data)
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < GROWTH_BYTES_MAX
    assert held < GROWTH_BYTES_MAX / 4
