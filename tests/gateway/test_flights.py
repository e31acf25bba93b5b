from mesh_llm.gateway.flights import FRESH_S, HEARD_MAX, Flights
from mesh_llm.gateway.remote import RemoteServer
from tests.gateway.meshes import FIRST, SECOND, an_offer


def a_server(node=FIRST, busy=0) -> RemoteServer:
    return RemoteServer(node, "", an_offer("m"), busy)


def test_what_is_under_way_there_counts_where_the_advert_is_late():
    flights = Flights()
    flights.took_off(FIRST)
    flights.took_off(FIRST)
    assert flights.busy(a_server(), 0) == 2
    assert flights.busy(a_server(busy=7), 0) == 7
    assert flights.busy(a_server(SECOND), 0) == 0
    flights.landed(FIRST)
    flights.landed(FIRST)
    assert flights.busy(a_server(), 0) == 0


def test_what_a_node_said_with_its_last_answer_is_newer_than_its_advert():
    flights = Flights()
    flights.heard(FIRST, 3, 10.0)
    assert flights.busy(a_server(busy=9), 10.0) == 3
    assert flights.busy(a_server(busy=9), 10.0 + FRESH_S + 0.1) == 9


def test_an_answer_that_has_landed_is_not_counted_any_more():
    flights = Flights()
    flights.took_off(FIRST)
    flights.heard(FIRST, 3, 10.0)
    assert flights.busy(a_server(busy=3), 10.0) == 3
    flights.landed(FIRST)
    assert flights.busy(a_server(busy=3), 10.0) == 2


def test_only_so_many_nodes_are_remembered():
    flights = Flights()
    flights.heard(FIRST, 3, 0.0)
    for number in range(HEARD_MAX):
        flights.heard(f"{number:064}", 1, 0.0)
    assert flights.busy(a_server(), 0.0) == 0
