"""OSC's bytes: both framings of a stream, and packets that are not what they seem."""

from __future__ import annotations

import contextlib
import math
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pythonosc import osc_bundle_builder, slip
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

from revithion_bridge import osc_packets
from revithion_bridge.osc_framing import FrameDecoder, Framing, FramingError, encode_frame
from revithion_bridge.osc_packets import build_message, parse_message, split_packet, typed
from revithion_stems.errors import RevithionError
from revithion_stems.scheduler import Priority

MOST = 64


def decoded(chunks: list[bytes], max_bytes: int = MOST) -> tuple[list[bytes], bool]:
    """The packets, and whether an error came after them."""
    decoder, packets = FrameDecoder(max_bytes), []
    try:
        for chunk in chunks:
            for packet in decoder.feed(chunk):
                packets.append(packet)
    except FramingError:
        return packets, True
    assert decoder.unfinished_bytes <= 2 * max_bytes + 4
    return packets, False


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


packets = st.lists(st.binary(min_size=1, max_size=MOST), max_size=6)
places = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)
# Bytes that mean something to the framings come up often.
noise = st.lists(st.sampled_from([*b"\xc0\xdb\xdc\xdd\x00/#,a", 0x05, 0xFF]), max_size=400).map(bytes)


@given(packets, places, st.sampled_from(Framing))
def test_what_was_framed_comes_out_however_it_is_cut(sent, where, framing):
    stream = b"".join(encode_frame(packet, framing) for packet in sent)
    assert decoded(cut(stream, where)) == (sent, False)


@given(st.sampled_from([b"\xc0", b"/", b"\0", b""]), noise, places)
def test_how_a_stream_is_cut_changes_nothing(first, stream, where):
    stream = first + stream
    whole = decoded([stream])
    assert decoded(cut(stream, where)) == whole
    assert decoded([bytes([byte]) for byte in stream]) == whole


@given(st.binary(min_size=1, max_size=200))
def test_slip_is_that_of_python_osc(packet):
    assert encode_frame(packet, Framing.SLIP) == slip.encode(packet)
    assert decoded([slip.encode(packet)], 200) == ([packet], False)


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST",
        b"\0\0\0\0",  # an empty packet
        struct.pack(">I", MOST + 1),
        b"\xc0" + b"a" * (MOST + 1) + b"\xc0",
        b"\xc0" + b"a" * (2 * MOST + 1),  # refused before its end has come
        b"\xc0\xdba\xc0",
        b"\xc0a\xdb\xc0",
    ],
)
def test_what_is_no_stream_of_osc_ends_it(stream):
    assert decoded([stream]) == ([], True)


def test_the_longest_packet_passes_in_both_framings():
    for framing in Framing:
        packet = b"\xc0\xdb" * (MOST // 2)
        assert decoded([encode_frame(packet, framing)]) == ([packet], False)


def test_a_sender_may_leave_the_first_end_out():
    assert decoded([b"/a\0\0\xc0/b\0\0\xc0"]) == ([b"/a\0\0", b"/b\0\0"], False)


def test_hostile_streams_cost_little():
    begin = time.perf_counter()
    for stream in (b"\xc0" * 262_144, b"\xc0a" * 131_072, b"\0\0\0\1a" * 52_428):
        decoded([stream], 262_144)
    assert time.perf_counter() - begin < 2.0  # 0.1 s here; a quadratic decoder takes minutes


# --- packets ---


def bundle(*contents: bytes) -> bytes:
    return b"#bundle\0" + bytes(8) + b"".join(struct.pack(">i", len(c)) + c for c in contents)


def message(address: str, *arguments: object) -> bytes:
    return build_message(address, map(typed, arguments))


def code_of(call, *args) -> str:
    with pytest.raises(RevithionError) as caught:
        call(*args)
    return caught.value.code


def test_bundles_in_bundles_keep_their_order():
    first, second, third = message("/a"), message("/b", 1), message("/c", "x")
    assert split_packet(bundle(first, bundle(second), third)) == [first, second, third]
    later = osc_bundle_builder.OscBundleBuilder(time.time() + 3600)  # time tags are not looked at
    later.add_content(OscMessage(second))
    later.add_content(OscMessage(first))
    assert split_packet(later.build().dgram) == [second, first]


def nested(depth: int) -> bytes:
    packet = message("/a")
    for _ in range(depth):
        packet = bundle(packet)
    return packet


def test_bundles_are_bounded():
    assert split_packet(nested(osc_packets.MAX_DEPTH)) == [message("/a")]
    assert code_of(split_packet, nested(osc_packets.MAX_DEPTH + 1)) == "protocol.malformed"
    assert code_of(split_packet, nested(3_000)) == "protocol.malformed"
    many = [message("/a")] * osc_packets.MAX_MESSAGES
    assert split_packet(bundle(*many)) == many
    assert code_of(split_packet, bundle(*many, message("/a"))) == "protocol.malformed"


@pytest.mark.parametrize("size", [-4, -20, 0, 2, 8, 2**31 - 1, -(2**31)])
def test_an_element_of_a_wrong_size_is_refused(size):
    # -4 would make python-osc read it for ever
    packet = b"#bundle\0" + bytes(8) + struct.pack(">i", size) + b"/a\0\0"
    assert code_of(split_packet, packet) == "protocol.malformed"


def test_each_type_comes_back():
    builder = OscMessageBuilder("/x/y")
    for tag, value in [("i", -5), ("h", 2**40), ("f", 0.5), ("d", 1 / 3), ("s", "né"), ("T", True), ("F", False)]:
        builder.add_arg(value, tag)
    builder.add_arg(None, "N")
    call = parse_message(builder.build().dgram)
    assert call.address == "/x/y"
    assert call.arguments == (-5, 2**40, 0.5, 1 / 3, "né", True, False, None)


@given(st.decimals(min_value=-120, max_value=24, places=2).map(float))
def test_a_decimal_survives_32_bits(value):
    assert parse_message(message("/g", value)).arguments == (value,)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_of_32_bits_stays_what_it_is(value):
    (got,) = parse_message(build_message("/g", [("f", value)])).arguments
    assert struct.pack(">f", got) == struct.pack(">f", value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abcd",
        b"/a\0",
        b"/aaa",
        b"/" + b"a" * 300 + b"\0\0\0",
        b"/a\0\0i\0\0\0",
        b"/a\0\0,i\0\0",
        b"/a\0\0,s\0\0abcd",
        b"/a\0\0,c\0\0\0\0\0a",
        b"/a\0\0,[]\0",
        b"/\xff\0\0,\0\0\0",
        b"/a\0\0,s\0\0\xff\xff\0\0",
        b"/a\0\0," + b"T" * 33 + b"\0\0",
        b"/a\0\0,f\0\0" + struct.pack(">f", math.nan),
        b"/a\0\0,d\0\0" + struct.pack(">d", math.inf),
        b"/a\0\0,b\0\0" + struct.pack(">i", -8),
        b"/a\0\0,b\0\0" + struct.pack(">i", 2**31 - 1),
    ],
)
def test_what_is_no_message_is_refused(data):
    assert code_of(parse_message, data) == "protocol.malformed"


def test_types_may_be_left_out_where_there_are_no_arguments():
    assert parse_message(b"/abc\0\0\0\0").arguments == ()


@given(st.binary(max_size=300), st.sampled_from([b"", b"/a\0\0,", b"#bundle\0" + bytes(8), b"/a\0\0,sfib\0\0\0"]))
def test_any_bytes_are_read_or_refused(data, first):
    with contextlib.suppress(RevithionError):  # any other error fails the test
        for found in split_packet(first + data):
            parse_message(found)


def test_values_are_typed_for_the_wire():
    assert [typed(v)[0] for v in (None, True, False, 1, 2**31 - 1, 2**31, 2**70, 0.5, 1e300, "a")] == list("NTFiihdfds")
    assert typed(0.5, double=True) == ("d", 0.5)
    assert typed(-math.inf) == ("f", -math.inf)
    assert typed(Priority.BATCH) == ("s", "batch")
    assert typed("a\0b") == ("s", "ab")
    assert typed("a\udcffb") == ("s", "a\ufffdb")
    assert len(typed("é" * 10_000)[1]) == osc_packets.MAX_TEXT
