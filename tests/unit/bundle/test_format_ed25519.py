"""Both ways to check an Ed25519 signature agree with RFC 8032, with each other, and refuse what is malformed."""

from __future__ import annotations

from hashlib import sha512

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.bundle.format import ed25519
from appliance.bundle.format.ed25519 import _is_signed_libcrypto, is_signed, is_sound
from appliance.testing.small_bundles import SmallKey
from tests.hostile.bundle_cases_documents import SMALL_ORDER, L

# RFC 8032, section 7.1: public key, message, signature of tests 1, 2, 3 and SHA(abc)
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]
WAYS = {"cryptography": is_signed, "libcrypto": _is_signed_libcrypto}
PRIME = 2**255 - 19


@pytest.fixture(params=WAYS)
def way(request):
    if request.param == "libcrypto":
        try:
            ed25519._libcrypto()
        except Exception as error:
            pytest.skip(f"no libcrypto on this machine: {error}")
    return WAYS[request.param]


@pytest.mark.parametrize("vector", VECTORS, ids=["test-1", "test-2", "test-3", "test-sha-abc"])
def test_the_vectors_of_the_standard_hold(way, vector):
    public, message, signature = map(bytes.fromhex, vector)
    assert way(public, signature, message)
    assert not way(public, signature, message + b"x")
    assert not way(public, signature[:-1] + bytes([signature[-1] ^ 1]), message)
    assert not way(VECTORS[0][0] == vector[0] and bytes.fromhex(VECTORS[1][0]) or bytes.fromhex(VECTORS[0][0]), signature, message)


def test_a_signature_has_one_spelling(way):
    """S + L passes for S where a checker does not reduce (RFC 8032, section 5.1.7)."""
    public, message, signature = map(bytes.fromhex, VECTORS[1])
    number = int.from_bytes(signature[32:], "little")
    for factor in (1, 2, 8):
        assert not way(public, signature[:32] + (number + factor * L).to_bytes(32, "little"), message)


@pytest.mark.parametrize("public", [b"", bytes(31), b"\1" * 33, b"\2" * 32])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), b"\xff" * 64, bytes(65)])
def test_malformed_input_is_simply_not_signed(way, public, signature):
    assert way(public, signature, b"message") is False


def test_anybody_could_sign_with_a_point_of_small_order_so_none_is_trusted():
    """The neutral element as a key: R = S·B with S = 0 holds for every message; OpenSSL itself accepts that."""
    neutral = b"\1" + bytes(31)
    forged = neutral + bytes(32)
    assert _is_signed_libcrypto(neutral, forged, b"any message at all")
    assert not is_signed(neutral, forged, b"any message at all")
    for point in SMALL_ORDER:
        assert not is_sound(point)
        assert not is_sound(point[:31] + bytes([point[31] | 0x80]))


def test_the_points_of_order_8_are_computed_and_not_remembered():
    """A point of order 8 doubles to one of order 4, which has y = 0: so x² = −y² and, on the curve, d·y⁴ + 2·y² − 1 = 0."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    for y in ed25519._SMALL_ORDER_Y - {0, 1, PRIME - 1}:
        assert (d * pow(y, 4, PRIME) + 2 * y * y - 1) % PRIME == 0
    assert len(ed25519._SMALL_ORDER_Y) == 5


def test_a_point_has_one_spelling():
    assert not is_sound((PRIME + 3).to_bytes(32, "little"))
    assert is_sound(SmallKey("a").trusted.public)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(0, 95), st.integers(0, 7), st.booleans())
def test_both_ways_give_the_same_answer(number, byte, bit, in_key):
    key = SmallKey(f"key-{number}")
    message = sha512(key.name.encode()).digest()
    public, signature = bytearray(key.trusted.public), bytearray(key.private.sign(message))
    target = public if in_key else signature
    target[byte % len(target)] ^= 1 << bit
    answers = {way(bytes(public), bytes(signature), message) for way in WAYS.values()}
    assert answers == {False}
