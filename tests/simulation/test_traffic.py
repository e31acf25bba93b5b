"""Knowing one another stays cheap as a mesh grows (`bench/gossip_traffic.py` measures it up to 300 nodes)."""

from math import log2

import pytest

from bench.gossip_traffic import measured, settled

BYTES_A_MINUTE_MAX = 2_500


@pytest.fixture(scope="module")
def meshes():
    return {count: settled(count) for count in (10, 60)}


def test_in_a_calm_mesh_a_node_sends_the_same_however_many_there_are(meshes):
    for mesh in meshes.values():
        traffic = measured(mesh, changes=0)
        assert traffic.bytes < BYTES_A_MINUTE_MAX
        assert traffic.views == traffic.adverts == 0


def test_a_change_costs_a_node_no_more_than_the_logarithm_of_their_number(meshes):
    costs = {}
    for count, mesh in meshes.items():
        calm, changing = measured(mesh, changes=0), measured(mesh, changes=2)
        assert changing.views == 0
        costs[count] = changing.bytes - calm.bytes
    assert costs[60] <= costs[10] * log2(61) / log2(11)
