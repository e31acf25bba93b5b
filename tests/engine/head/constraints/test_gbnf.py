import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_llm.core.errors import RequestRefused
from mesh_llm.engine.head.constraints.gbnf import CHARACTERS_MAX, NESTING_MAX, check_gbnf

ARITHMETIC = r"""
# sums and products
root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]{1,20} ws
ws    ::= [ \t\n]*
"""
JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""

GOOD = [
    ARITHMETIC,
    JSON,
    'root ::= "yes" |\n "no"',
    "root ::= .*",
    'root ::= <think> !<[7]>* "x"',
    'root ::= "\\u00e9" [\\U0001F600-\\U0001F64F]',
    'root ::= "a"\nroot ::= "b"',
    'root ::= ""',
]

BAD = [
    ("", "no rule `root`"),
    ('x ::= "a"', "no rule `root`"),
    ('root = "a"', "`::=` was expected"),
    ('root ::= "a', 'no `"` follows'),
    ("root ::= [a", "no `]` follows"),
    ("root ::= <a", "no `>` follows"),
    ("root ::= <[a]>", "number of a token"),
    ('root ::= "\\q"', "followed by none of"),
    ('root ::= "\\u12"', "4 hexadecimal digits"),
    ('root ::= ("a"', "`)` was expected"),
    ('root ::= "a" )', "the end of the rule was expected"),
    ("root ::= *", "nothing to repeat"),
    ('root ::= ""+', "nothing to repeat"),
    ('root ::= "a"{', "a repetition as {1,2}"),
    ('root ::= "a"{2,1}', "ends before it begins"),
    ('root ::= "a"{2001}', "more than 2000 times"),
    (
        'root ::= "abcdefghijklmnopqrstuvwxyz"{1000} "abcdefghijklmnopqrstuvwxyz"{1000} '
        '"abcdefghijklmnopqrstuvwxyz"{1000} "abcdefghijklmnopqrstuvwxyz"{1000}',
        "more than 100000 elements",
    ),
    ("root ::= other", "names the rule `other`"),
    ('root ::= root "a" | "b"', "`root` begins with itself"),
    ('root ::= a\na ::= b "x"\nb ::= a | "y"', "begins with itself"),
    ('root ::= nothing root "x" | "y"\nnothing ::= empty\nempty ::= ""', "begins with itself"),
    ('root ::= ("a"*)*', "begins with itself"),
    ("root ::= " + "(" * 60 + '"a"' + ")" * 60, f"more than {NESTING_MAX} times"),
    (
        "\n".join(f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(30)) + '\nr30 ::= "a"\nroot ::= r0',
        "1000 ways",
    ),
    ("root ::= \0", "no text has"),
    ('root ::= "\ud800"', "no text has"),
    ("#" * (CHARACTERS_MAX + 1), f"more than {CHARACTERS_MAX}"),
]


@pytest.mark.parametrize("grammar", GOOD)
def test_a_grammar_that_llama_cpp_can_follow_passes(grammar):
    check_gbnf(grammar)


@pytest.mark.parametrize(("grammar", "reason"), BAD)
def test_a_grammar_that_would_harm_is_refused_with_its_reason(grammar, reason):
    with pytest.raises(RequestRefused) as refused:
        check_gbnf(grammar)
    assert reason in str(refused.value)
    assert refused.value.parameter == "grammar"


@given(st.text(alphabet='root:= "[]()|*+?{}0123,\\x\n#.<>!-^a', max_size=80))
def test_any_text_is_a_grammar_or_refused(text):
    with contextlib.suppress(RequestRefused):
        check_gbnf("root ::= " + text)
