"""Asking whether members live, and what their silence means. See `membership.py` for the rules.

Knows nothing of hearsay: it is told whom to doubt.
"""

from mesh_llm.core.ids import NodeId
from mesh_llm.mesh.gossip.inquiries import Favour, Inquiries
from mesh_llm.mesh.gossip.membership_events import AckOverdue, ProbeDue, ReportOverdue, SuspicionExpired
from mesh_llm.mesh.gossip.messages import Ping, PingReport, PingRequest
from mesh_llm.mesh.gossip.news import Health, News
from mesh_llm.mesh.gossip.outlook import Outlook
from mesh_llm.mesh.gossip.probes import Probe, Probes, Rounds, some

HELPERS = 3
PROBES_MAX = 16
"""Awaited at once beyond the one each second: a view of a thousand doubts is worked off, not fired off."""
HEARD_LATELY_S = 0.5
"""Who spoke this lately need not be asked."""


class Prober:
    def __init__(self, outlook: Outlook) -> None:
        self._outlook = outlook
        self._probes = Probes()
        self._rounds = Rounds(outlook.chance)
        self._inquiries = Inquiries()
        self._doubts: dict[NodeId, None] = {}
        """To be asked when there is room, in the order in which they came."""
        self._suspicions: dict[NodeId, int] = {}
        self._suspicion = 0
        self._ticked = 0.0

    # -- when ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        outlook = self._outlook
        self._ticked = outlook.now
        outlook.start_timer(outlook.chance.uniform(0, outlook.timing.probe), ProbeDue())

    def tick(self) -> None:
        outlook = self._outlook
        self._ticked = outlook.now
        outlook.start_timer(outlook.timing.probe, ProbeDue())
        self._inquiries.expire(outlook.now)
        for node in sorted(self._suspicions):
            self._probe(node, urgent=True)
        self._ask_doubted()
        target = self._rounds.next(outlook.me, outlook.roster)
        if target is not None:
            self._probe(target)
        dead = outlook.roster.gone_of(Health.DEAD)
        if dead and self._rounds.gone_due():
            self._probe(outlook.chance.choice(dead))

    def wake_if_asleep(self) -> None:
        """If this process stood still, the silence was its own: all is asked anew."""
        if self._outlook.now - self._ticked <= self._outlook.timing.asleep:
            return
        self._ticked = self._outlook.now
        for node in self._probes.targets():
            self._probes.end(node)
            self._doubts[node] = None
        for node in sorted(self._suspicions):
            self._count_down(node)

    # -- whom ---------------------------------------------------------------------------------------------

    def doubt(self, node: NodeId, said: News | None = None) -> None:
        """Ask it at once, or as soon as there is room. `said` of it: it will want to refute that."""
        heard = self._outlook.heard.get(node)
        if heard is not None and self._outlook.now - heard < HEARD_LATELY_S:
            return
        if len(self._probes) < PROBES_MAX:
            self._probe(node, urgent=True, said=said)
        else:
            self._doubts[node] = None

    def ask_for(self, asker: NodeId, sequence: int, target: NodeId) -> None:
        if target in self._outlook.roster:
            self._inquiries.promise(target, Favour(asker, sequence, self._outlook.now))
            self._probe(target)

    def _ask_doubted(self) -> None:
        while self._doubts and len(self._probes) < PROBES_MAX:
            node = next(iter(self._doubts))
            del self._doubts[node]
            self._probe(node, urgent=True)

    def _probe(self, node: NodeId, *, urgent: bool = False, said: News | None = None) -> None:
        outlook = self._outlook
        member = outlook.roster.get(node)
        if member is None or self._probes.of(node) is not None:
            return
        probe = self._probes.begin(node)
        if said is None and member.health is not Health.ALIVE and member.version > 0:
            said = member.news
        outlook.send(node, Ping(probe.sequence, *outlook.first_hand(said)))
        if urgent:
            self._send_helpers(probe)
            outlook.start_timer(outlook.timing.urgent, ReportOverdue(probe.sequence))
        else:
            outlook.start_timer(outlook.timing.ack, AckOverdue(probe.sequence))

    def _send_helpers(self, probe: Probe) -> bool:
        outlook = self._outlook
        others = [node for node in outlook.roster.living() if node != probe.target]
        helpers = some(outlook.chance, others, HELPERS)
        self._inquiries.sent(probe.sequence, probe.target, helpers, outlook.now)
        for helper in helpers:
            outlook.send(helper, PingRequest(probe.sequence, probe.target))
        return bool(helpers)

    # -- what comes of it ---------------------------------------------------------------------------------

    def answered(self, node: NodeId) -> None:
        outlook = self._outlook
        outlook.heard[node] = outlook.now
        self._probes.end(node)
        self._doubts.pop(node, None)
        self._suspicions.pop(node, None)
        for favour in self._inquiries.fulfil(node, outlook.now):
            outlook.send(favour.asker, PingReport(favour.sequence, node))
        member = outlook.roster.get(node)
        if member is not None and member.health is not Health.ALIVE:
            outlook.change(member, Health.ALIVE)

    def reported(self, helper: NodeId, sequence: int, target: NodeId) -> None:
        if self._inquiries.reported(sequence, target, helper, self._outlook.now):
            self.answered(target)

    def ack_overdue(self, sequence: int) -> None:
        outlook = self._outlook
        probe = self._probes.get(sequence)
        if probe is None:
            return
        member = outlook.roster.get(probe.target)
        if member is not None and member.health.living and self._send_helpers(probe):
            outlook.start_timer(outlook.timing.report, ReportOverdue(sequence))
        else:
            self.report_overdue(sequence)

    def report_overdue(self, sequence: int) -> None:
        probe = self._probes.get(sequence)
        if probe is None:
            return
        self._probes.end(probe.target)
        member = self._outlook.roster.get(probe.target)
        if member is not None and member.health is Health.ALIVE:
            self._outlook.change(member, Health.SUSPECT)
            self._count_down(member.node)

    def suspicion_expired(self, node: NodeId, suspicion: int) -> None:
        member = self._outlook.roster.get(node)
        if member is not None and self._suspicions.get(node) == suspicion:
            del self._suspicions[node]
            self._outlook.change(member, Health.DEAD)

    def gone(self, node: NodeId) -> None:
        """It left or was forgotten: nothing is expected of it any more."""
        self._probes.end(node)
        self._doubts.pop(node, None)
        self._suspicions.pop(node, None)

    def _count_down(self, node: NodeId) -> None:
        self._suspicion += 1
        self._suspicions[node] = self._suspicion
        self._outlook.start_timer(self._outlook.timing.suspicion, SuspicionExpired(node, self._suspicion))
