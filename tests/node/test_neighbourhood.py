"""What the console and the gateway see of others, through a real mesh over a network in memory."""

from mesh_llm.node.neighbourhood import Neighbourhood
from tests.mesh.household import Town, in_town, until


def test_people_see_whether_a_peer_is_reached_directly_or_over_a_relay():
    async def story(town: Town) -> None:
        here, there = await town.mesh_of(2)
        neighbourhood = Neighbourhood(here.mesh)
        await until(lambda: neighbourhood.peers()[0].round_trip_s is not None, within_s=10)
        assert neighbourhood.peers()[0].path == "direct"
        town.network.relay(here.id, there.id)
        assert neighbourhood.peers()[0].path == "relay"

    in_town(story)


def test_a_peer_without_a_connection_has_no_path():
    async def story(town: Town) -> None:
        here, there = await town.mesh_of(2)
        await there.transport.close()
        await until(lambda: here.mesh.reach_of(there.id) is None, within_s=1)
        assert [(peer.id, peer.path) for peer in Neighbourhood(here.mesh).peers()] == [(there.id, None)]

    in_town(story)


def test_each_model_of_each_peer_is_a_server_to_the_gateway():
    async def story(town: Town) -> None:
        here, there = await town.mesh_of(2)
        neighbourhood = Neighbourhood(here.mesh)

        def models() -> list[str]:
            return [server.served.offer.name for server in neighbourhood.servers()]

        there.serve("one", "another")
        await until(lambda: models() == ["one", "another"], within_s=5)
        assert {server.node for server in neighbourhood.servers()} == {there.id}
        assert {server.node_name for server in neighbourhood.servers()} == {there.name}

    in_town(story)
