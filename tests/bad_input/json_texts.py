# ruff: noqa: E501 -- tables of texts
r"""JSON texts by the class of what is right, wrong or left open in them (RFC 8259), of our own making.

Each is the text of one value, which the tests put into documents; `WHOLE_*` are whole documents. A verdict is TAKE where
RFC 8259 calls the text JSON, REFUSE where it does not, and what we have chosen where it leaves that to the parser.
"""

from __future__ import annotations

import pytest

__all__ = ["GOOD", "LEFT_OPEN", "NUMBERS", "WHOLE_GOOD", "WHOLE_WRONG", "WRONG"]

GOOD: dict[str, list[bytes]] = {
    "literals": [b"true", b"false", b"null"],
    "structure": [
        b"[]", b"{}", b"[[]]", b"[{}]", b"[[],[]]", b"[1,2,3]", b'{"a":1}', b'{"a":{"b":{"c":[]}}}', b'["",[],{},0,null]',
        b'{"":0}', b'{"a":[],"b":{}}', b"[null,null]", b'[{"a":1},{"b":2}]', b'{"a b":1}', b'{"1":1}',
    ],
    "strings": [
        b'""', b'"a"', b'" "', b'"a b c"', b'"\x7f"', b'"null"', b'"[]"', b'"{\'a\'}"', b'"/"', b'"#"', b'"a:b,c"', b'"//x"',
        b'"/* x */"',
    ],
    "escapes": [
        rb'"\""', rb'"\\"', rb'"\/"', rb'"\b\f\n\r\t"', rb'"\u0000"', rb'"\u0041"', rb'"\u00e9"', rb'"\u00E9"', rb'"\uD834\uDD1E"',
        rb'"\ud834\udd1e"', rb'"\u2028\u2029"', rb'"\uFFFF"', rb'"\uFFFE"', rb'"\uFEFF"', rb'"\\u0041"', rb'"\\\\"', rb'"a\u0022b"',
        rb'"\u005C"', rb'"\uDBFF\uDFFF"', rb'{"\u0061":1}',
    ],
    "encoding": [
        '"қала"'.encode(), '"é"'.encode(), '"\u2028"'.encode(), '"\u2029"'.encode(), '"😀"'.encode(), '"\U0010ffff"'.encode(),
        '"\ufeff"'.encode(), '"\ufffe"'.encode(), '"\ue000"'.encode(), '"\u0080"'.encode(), '{"ключ":"значение"}'.encode(),
    ],
    "whitespace": [b" 1", b"1 ", b"\t1", b"\n1", b"\r1", b"\r\n1\r\n", b"[ ]", b"[\n1 ,\t2\r]", b'{ "a" : 1 }', b" [ [ ] ] "],
    "duplicates": [b'{"a":1,"a":1}', b'{"a":1,"a":2}', rb'{"a":1,"\u0061":2}', b'{"":1,"":2}', b'{"a":[],"a":{}}'],
    "huge": [b'"' + b"x" * 30_000 + b'"', b"[" + b"0," * 9_999 + b"0]", b" " * 30_000 + b"1", b'{"' + b"k" * 30_000 + b'":1}'],
    "depth": [b"[" * 32 + b"]" * 32, b'{"a":' * 32 + b"1" + b"}" * 32, b"[" * 50 + b"]" * 50],
}  # fmt: skip

NUMBERS: list[tuple[bytes, float]] = [
    (b"0", 0.0), (b"-0", 0.0), (b"-0.0", -0.0), (b"1", 1.0), (b"-1", -1.0), (b"12", 12.0), (b"1.5", 1.5), (b"-1.5", -1.5),
    (b"0.1", 0.1), (b"1e2", 100.0), (b"1E2", 100.0), (b"1e+2", 100.0), (b"1E+2", 100.0), (b"1e-2", 0.01), (b"1.5e3", 1500.0),
    (b"0e0", 0.0), (b"0e+1", 0.0), (b"0E-1", 0.0), (b"1e00", 1.0), (b"1e01", 10.0), (b"1.000", 1.0), (b"1e308", 1e308),
    (b"1.7976931348623157e308", 1.7976931348623157e308), (b"4.9e-324", 5e-324), (b"1e-400", 0.0), (b"-1e-400", -0.0),
    (b"2.2250738585072011e-308", 2.225073858507201e-308), (b"9007199254740993", 9007199254740992.0),
    (b"123456789012345678901234567890", 1.2345678901234568e29), (b"1" + b"0" * 300, 1e300), (b"0." + b"0" * 300 + b"1", 1e-301),
    (b"0.30000000000000004", 0.30000000000000004), (b"1." + b"3" * 2000, 4 / 3),
]  # fmt: skip
"""Numbers that float64 holds, after rounding, with what they come to."""

WRONG: dict[str, list[bytes]] = {
    "numbers": [
        b"01", b"-01", b"00", b"+1", b"+0", b"1.", b".5", b"-.5", b"-", b"--1", b"1.e1", b"1e", b"1e+", b"1E-", b"1e1.5", b"1.2.3", b"0x10",
        b"0b1", b"0o7", b"1_000", b"1 000", b"1,5", b"Infinity", b"-Infinity", b"NaN", b"-NaN", b"nan", b"inf", b"+Inf", b"1f", b"1n", b"0.", b"0e",
        b"1/2", b"1+1", b"2.e-3", b"e1", b"-e", b".", b"1e1e1", b"- 1", b"1 e2", "１".encode(), "١".encode(), b"0xFFp1", b"$1", b"1%", b"012.3",
    ],
    "literals": [
        b"True", b"TRUE", b"False", b"Null", b"NULL", b"nul", b"tru", b"fals", b"truefalse", b"nulll", b"None", b"undefined", b"yes", b"on", b"true1",
        b"t", b"n", b"\xc2\xa0true",
    ],
    "structure": [
        b"", b"[", b"]", b"{", b"}", b"[1", b"[1,", b"[1,]", b"[,1]", b"[,]", b"[1,,2]", b"[1 2]", b"[1:2]", b"[1}", b"{]", b"{1:1}", b"{null:1}",
        b"{a:1}", b"{'a':1}", b'{"a"}', b'{"a":}', b'{"a":1,}', b'{,"a":1}', b'{"a" 1}', b'{"a"::1}', b'{"a":1 "b":2}', b'{"a":1;"b":2}', b'{"a","b"}',
        b'{"a":1]', b"[[]", b"[]]", b"{{}}", b"{[]:1}", b'{"a":1,,"b":2}', b"[\"a\":1]", b"[1,2", b":", b",", b"()", b"<a/>", b"[*]", b'{"a"=1}',
        b'{"a":1,"b"}', b"[true,", b"1,2", b'"a" "b"',
    ],
    "comments": [b"1 // one", b"/* one */ 1", b"# one\n1", b"[1 /* , */ ]", b"-- 1", b"<!-- --> 1", b"[1//\n]", b";1"],
    "strings": [
        b'"', b'"a', b'a"', b"'a'", b"`a`", b"a", b'"a\nb"', b'"a\tb"', b'"a\rb"', b'"\x00"', b'"\x1f"', b'"\x01"', b'"a" b', b'""" a """', b'"\x0b"', b'"\x08"',
        b'"a""b"', "“a”".encode(),
    ],
    "escapes": [
        rb'"\x41"', rb'"\a"', rb'"\0"', rb'"\'"', rb'"\u"', rb'"\u1"', rb'"\u12"', rb'"\u123"', rb'"\u12G4"', rb'"\U0041"', rb'"\u 041"', rb'"\u+041"',
        rb'"\u-041"', rb'"\u{41}"', b'"\\', b'"\\"', rb'"\v"', b'"\\\n"', rb'\u0022a"', rb'"\ud834\u"', rb'"\ud834\ud"', b'"\\\xc3\xa9"', rb'"\u0x41"', rb'\n',
    ],
    "encoding": [
        b'"\xff"', b'"\xfe"', b'"\x80"', b'"\xc3"', b'"\xc3("', b'"\xe2\x82"', b'"\xf0\x9f\x98"', b'"\xc0\xaf"', b'"\xc0\x80"', b'"\xe0\x80\xaf"', b'"\xed\xa0\x80"',
        b'"\xed\xbf\xbf"', b'"\xf4\x90\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xf5\x80\x80\x80"', b'"caf\xe9"', b"\xff", b"[\xe9]", b'{"\xff":1}', b'"\xd2\x9b\xff"',
        b"\xe5",
    ],
    "whitespace": [
        b"\x0b1", b"\x0c1", b"\xc2\xa01", "\u20281".encode(), "\u30001".encode(), "\ufeff1".encode(), "[\u2060]".encode(), b"\x001", b"1\x00", b"[\x0c]", b"\x1e1", b"\x851",
    ],
    "depth": [b"[" * 30_000, b'{"a":' * 10_000, b"[" * 30_000 + b"]" * 30_000, b"[{" * 10_000, b"]" * 1000, b'[{"a":' * 8_000],
    "huge": [b"[" + b"1," * 20_000, b'"' + b"x" * 30_000, b"{" + b'"a":1,' * 9_000 + b"}", b"-" * 20_000],
}  # fmt: skip

TAKE, REFUSE = "taken", "refused"

LEFT_OPEN: list[tuple[str, bytes, str]] = [
    ("lone high surrogate", rb'"\ud800"', TAKE),
    ("lone low surrogate", rb'"\udc00"', TAKE),
    ("surrogates in the wrong order", rb'"\udd1e\ud834"', TAKE),
    ("high surrogate before a letter", rb'"\ud834a"', TAKE),
    ("two high surrogates", rb'"\ud834\ud834"', TAKE),
    ("lone surrogate in a key", rb'{"\ud800":1}', TAKE),
    ("noncharacter", '"\ufdd0"'.encode(), TAKE),
    ("escaped noncharacter", rb'"\ufdd0"', TAKE),
    ("65 arrays, more than the 64 that are read", b"[" * 65 + b"]" * 65, REFUSE),
    ("65 objects", b'{"a":' * 65 + b"1" + b"}" * 65, REFUSE),
    ("500 arrays", b"[" * 500 + b"]" * 500, REFUSE),
    ("integer of 4,301 digits", b"1" * 4_301, TAKE),
    ("integer of 5,000 digits", b"9" * 5_000, TAKE),
    ("exponent beyond float64", b"1e400", TAKE),
    ("exponent far beyond float64", b"-1e99999999999", TAKE),
    ("integer beyond float64", b"9" * 310, TAKE),
    ("one member twice", b'{"a":1,"a":"x"}', TAKE),
    ("a member 1,000 times", b"{" + b",".join([b'"a":1'] * 1000) + b"}", TAKE),
    ("__proto__ as a member", b'{"__proto__":{"a":1}}', TAKE),
]  # fmt: skip
"""What RFC 8259 leaves to the parser, and what ours does."""

_BODY = b'{"t":1767225600000,"v":{"pm2_5":1}}'

WHOLE_GOOD: list[object] = [
    pytest.param(_BODY, id="plain"),
    pytest.param(b" \t\r\n" + _BODY + b" \t\r\n", id="whitespace around"),
    pytest.param(_BODY.replace(b":", b" : ").replace(b",", b" ,\n"), id="whitespace inside"),
    pytest.param(_BODY.replace(b'"t"', rb'"\u0074"'), id="escaped member"),
    pytest.param(_BODY.replace(b"}}", b'},"v":{"pm2_5":1}}'), id="member twice"),
    pytest.param(_BODY.replace(b'"v"', b'"T":5,"V":{},"v"'), id="names in capitals are others"),
]

WHOLE_WRONG: list[object] = [
    pytest.param(b"", id="nothing"),
    pytest.param(b" \n", id="whitespace alone"),
    pytest.param(b"\x00", id="NUL"),
    pytest.param(_BODY[:-1], id="last brace missing"),
    pytest.param(_BODY + b"}", id="one brace too many"),
    pytest.param(_BODY + _BODY, id="two documents"),
    pytest.param(_BODY + b"\n" + _BODY, id="two lines"),
    pytest.param(b"\x1e" + _BODY, id="a JSON sequence"),
    pytest.param(_BODY + b"\x00", id="NUL behind"),
    pytest.param(_BODY + b"#", id="comment sign behind"),
    pytest.param(b"\xef\xbb\xbf" + _BODY, id="byte order mark"),
    pytest.param(_BODY.decode().encode("utf-16"), id="UTF-16"),
    pytest.param(_BODY.decode().encode("utf-16-be"), id="UTF-16 BE"),
    pytest.param(_BODY.decode().encode("utf-32"), id="UTF-32"),
    pytest.param(b")]}'\n" + _BODY, id="guard against scripts"),
    pytest.param(b"callback(" + _BODY + b")", id="JSONP"),
    pytest.param(_BODY.replace(b'"', b"'"), id="single quotes"),
    pytest.param(_BODY.replace(b'"t"', b"t"), id="bare member"),
    pytest.param(_BODY.replace(b"}}", b"},}"), id="comma behind the last member"),
    pytest.param(b"t: 1\nv:\n  pm2_5: 1\n", id="YAML"),
    pytest.param(b"<v><pm2_5>1</pm2_5></v>", id="XML"),
    pytest.param(b"pm2_5,1\n", id="CSV"),
    pytest.param(b"pm2_5 value=1 1767225600000\n", id="line protocol"),
    pytest.param(b"\x83\xa1t\x01", id="MessagePack"),
    pytest.param(b"\x1f\x8b\x08\x00", id="gzip"),
]
