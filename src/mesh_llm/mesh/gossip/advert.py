"""What a node says of itself, signed with its own key, so that it may come from anybody.

Knows nothing of how adverts travel: `adverts.py` decides what is fetched from whom. The certificate is
opaque here; whoever takes an advert in has it checked (`admission.py`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import isfinite

from mesh_llm.core.experts import Quality
from mesh_llm.core.ids import NodeId
from mesh_llm.core.offers import CutOffer, ServedOffer
from mesh_llm.core.stages import (
    CLAIM_MODEL_CHARACTERS_MAX,
    CLAIMS_MAX,
    LAYERS_MAX,
    STAGES_MAX,
    SplitClaim,
    StageHolding,
)
from mesh_llm.mesh import bounded
from mesh_llm.mesh.addresses import are_tellable, tellable
from mesh_llm.mesh.admission.certificates import CERTIFICATE_BYTES_MAX
from mesh_llm.mesh.admission.signatures import verify
from mesh_llm.mesh.gossip.news import NUMBER_MAX
from mesh_llm.mesh.transport import Addresses, PeerError

DOMAIN = b"mesh-llm advert 1\0"

ADVERT_BYTES_MAX = 64 * 1024
MODELS_MAX = 64
ON_DISK_MAX = 500
NAME_CHARACTERS_MAX = 200
"""The longest names in public hubs have about 100."""
LISTED_MAX = 32
"""Aliases and capabilities of a model."""
SLOTS_MAX = 10_000
EXPERTS_MAX = 65_536
"""Of a layer; llama.cpp itself takes 1,024."""
PERPLEXITY_MAX = 1e12
"""What a cut costs that says nothing any more: the worst that was seen has some ten thousand."""
KL_MIN = -1.0
"""It is never negative, but for what was rounded when it was measured."""
KL_MAX = 10_000.0


@dataclass(frozen=True, slots=True)
class Advert:
    """New fields have defaults: peers may be older, and ignore what they do not know."""

    node: NodeId
    version: int
    """Grows with each change; the newest wins."""
    name: str = ""
    """For people."""
    program_version: str = ""
    role: str = "server"
    """`server`, `client` (serves nothing), `standby`; newer peers may know more."""
    addresses: Addresses = field(default_factory=Addresses)
    certificate: bytes = b""
    memory_bytes: int = 0
    """That models may use on the node's machine."""
    models: tuple[ServedOffer, ...] = ()
    on_disk: tuple[str, ...] = ()
    """Names of models that it could serve without a download."""
    started: int = 0
    """Seconds since the epoch."""
    claims: tuple[SplitClaim, ...] = ()
    """Models that it wants to run over several nodes."""


@dataclass(frozen=True, slots=True)
class SignedAdvert:
    body: bytes
    """An encoded Advert: what was signed is kept as it came, with fields that we do not know."""
    signature: bytes


Sign = Callable[[bytes], bytes]
"""Of an advert's body: `NodeKey.sign` with DOMAIN."""


def sign_advert(advert: Advert, sign: Sign) -> SignedAdvert:
    """What is more than others would take is left out: the last of what lies on disk first. Raises ValueError
    where even that does not help."""
    advert = _shortened(advert)
    wrong = _what_is_wrong(advert)
    if wrong is not None:
        raise ValueError(f"This node's advert has a {wrong} that others would refuse.")
    while len(body := bounded.encode(advert)) > ADVERT_BYTES_MAX:
        longest = "on_disk" if advert.on_disk else "models"
        kept = getattr(advert, longest)
        advert = replace(advert, **{longest: kept[: len(kept) // 2]})
    return SignedAdvert(body, sign(body))


def read(advert: SignedAdvert) -> Advert:
    """Raises PeerError for a forgery, and for what is larger than the limits."""
    said = bounded.decode(advert.body, Advert, bytes_max=ADVERT_BYTES_MAX, what="An advert")
    wrong = _what_is_wrong(said)
    if wrong is not None:
        raise PeerError(f"An advert whose {wrong} is not within its limits.")
    if not verify(said.node, DOMAIN, advert.body, advert.signature):
        raise PeerError("An advert that its node has not signed.")
    return said


def _what_is_wrong(advert: Advert) -> str | None:
    checks = {
        "version": 1 <= advert.version <= NUMBER_MAX,
        "name": _is_text(advert.name),
        "program version": _is_text(advert.program_version),
        "role": _is_text(advert.role),
        "addresses": are_tellable(advert.addresses),
        "certificate": len(advert.certificate) <= CERTIFICATE_BYTES_MAX,
        "memory": _is_count(advert.memory_bytes),
        "models": len(advert.models) <= MODELS_MAX and all(map(_is_offer, advert.models)),
        "list of what lies on disk": len(advert.on_disk) <= ON_DISK_MAX and _are_texts(advert.on_disk),
        "start": _is_count(advert.started),
        "claims": len(advert.claims) <= CLAIMS_MAX and all(map(_is_claim, advert.claims)),
    }
    return next((what for what, right in checks.items() if not right), None)


def _is_text(text: str) -> bool:
    """It is shown to people: nothing that moves their cursors."""
    return len(text) <= NAME_CHARACTERS_MAX and text.isprintable()


def _are_texts(texts: Iterable[str]) -> bool:
    return all(map(_is_text, texts))


def _is_count(number: int) -> bool:
    return 0 <= number <= NUMBER_MAX


def _is_offer(served: ServedOffer) -> bool:
    offer = served.offer
    texts = (offer.name, offer.architecture, offer.quantisation, *offer.aliases, *offer.capabilities)
    counts = (offer.bytes, offer.context_length, offer.context_length_trained, offer.parameters)
    return (
        offer.name != ""
        and _are_texts(texts)
        and len(offer.aliases) <= LISTED_MAX
        and len(offer.capabilities) <= LISTED_MAX
        and all(map(_is_count, (*counts, offer.embedding_length, offer.created)))
        and 1 <= offer.slots <= SLOTS_MAX
        and isfinite(served.tokens_per_second)
        and served.tokens_per_second >= 0
        and len(offer.stages) <= STAGES_MAX
        and all(map(_is_holding, offer.stages))
        and (offer.cut is None or _is_cut(offer.cut))
    )


def _is_cut(cut: CutOffer) -> bool:
    quality = cut.quality
    return (
        0 < len(cut.model) <= CLAIM_MODEL_CHARACTERS_MAX
        and _are_texts((cut.model, cut.ranking, cut.choice, cut.measuring))
        and 0 <= cut.kept <= cut.experts <= EXPERTS_MAX
        and (quality is None or _is_quality(quality))
    )


def _is_quality(quality: Quality) -> bool:
    """No comparison holds for what is no number."""
    return (
        1 <= quality.perplexity <= PERPLEXITY_MAX
        and 1 <= quality.full_perplexity <= PERPLEXITY_MAX
        and KL_MIN <= quality.kl <= KL_MAX
        and 0 <= quality.same_top <= 1
        and 1 <= quality.tokens <= NUMBER_MAX
    )


def _is_holding(stage: StageHolding) -> bool:
    return _is_text(stage.node) and _is_text(stage.node_name) and stage.layers.end <= LAYERS_MAX


def _is_claim(claim: SplitClaim) -> bool:
    return (
        0 < len(claim.model) <= CLAIM_MODEL_CHARACTERS_MAX
        and claim.model.isprintable()
        and _is_text(claim.state)
        and _is_count(claim.room)
    )


def _shortened(advert: Advert) -> Advert:
    return replace(
        advert,
        name=_readable(advert.name),
        program_version=_readable(advert.program_version),
        addresses=tellable(advert.addresses),
        models=tuple(filter(_is_offer, map(_without_impossible_quality, advert.models)))[:MODELS_MAX],
        on_disk=tuple(filter(_is_text, advert.on_disk))[:ON_DISK_MAX],
    )


def _without_impossible_quality(served: ServedOffer) -> ServedOffer:
    """Who measured nonsense serves its cut all the same, as one that nobody has measured."""
    cut = served.offer.cut
    if cut is None or cut.quality is None or _is_quality(cut.quality):
        return served
    return replace(served, offer=replace(served.offer, cut=replace(cut, quality=None)))


def _readable(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:NAME_CHARACTERS_MAX]
