import errno

from mesh_llm.mesh import iroh_words

IN_USE = f"""Failed to bind sockets
Address already in use (os error {errno.EADDRINUSE})  (/root/.cargo/registry/src/iroh/src/socket.rs:12:34)
"""


def test_an_error_is_told_on_one_line_without_places_in_irohs_source():
    told = f"Failed to bind sockets Address already in use (os error {errno.EADDRINUSE})"
    assert iroh_words.plain(IN_USE) == told
    assert iroh_words.plain("\n \n") == "iroh gave no reason"


def test_the_systems_number_is_found_where_there_is_one():
    assert iroh_words.os_error(IN_USE) == errno.EADDRINUSE
    assert iroh_words.os_error("timed out") == 0


def test_a_peers_goodbye_is_told_in_its_own_words():
    assert iroh_words.why_closed("closed by peer: we are\nclosing (code 1)") == "we are\nclosing"
    assert iroh_words.why_closed("timed out") == "timed out"


def test_a_stream_that_the_peer_reads_no_more_is_told_from_a_broken_one():
    assert iroh_words.peer_stopped_reading("Stopped(VarInt(1))")
    assert not iroh_words.peer_stopped_reading("connection lost")
