from mesh_llm.engine.child import explain, loaded_share


def test_an_end_is_explained_by_the_last_lines_that_say_something():
    tail = (
        "one",
        "two",
        "",
        "0.00.007.024 E three",
        "four ",
        "0.00.011.201 E srv init: exiting due to model loading error",
    )
    assert explain(-6, tail) == "killed by SIGABRT: two | three | four"
    assert explain(1, ()) == "exit status 1"


def test_a_system_without_openmp_is_told_what_to_install():
    tail = ("OSError: libgomp.so.1: cannot open shared object file", "and so on")
    assert "apt install libgomp1" in explain(3, tail)


def test_progress_is_heard_and_other_lines_are_not():
    assert loaded_share('loading {"fraction": 0.4}') == 0.4
    assert loaded_share("something else") is None
