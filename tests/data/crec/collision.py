"""One AES-GCM record that authenticates under two keys: why a recording commits to its key.

GCM's tag is a polynomial over GF(2^128) in the hash key. Two keys give two linear conditions on the ciphertext; one
free
block is enough to make both tags equal. Source: NIST SP 800-38D sections 6.3, 6.4 and 7.1.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_REDUCTION = 0xE1 << 120
_ONE = 1 << 127  # GCM writes polynomials with the lowest power in the highest bit


def multiply(left: int, right: int) -> int:
    """Product in GF(2^128), SP 800-38D section 6.3."""
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_REDUCTION if right & 1 else 0)
    return product


def power(base: int, exponent: int) -> int:
    result = _ONE
    while exponent:
        if exponent & 1:
            result = multiply(result, base)
        base = multiply(base, base)
        exponent >>= 1
    return result


def inverse(value: int) -> int:
    return power(value, 2**128 - 2)


def encrypt_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def ghash(hash_key: int, blocks: list[int]) -> int:
    state = 0
    for block in blocks:
        state = multiply(state ^ block, hash_key)
    return state


def collide(first_key: bytes, second_key: bytes, nonce: bytes, ciphertext: bytes, free_block: int) -> bytes:
    """Ciphertext and tag, valid under both keys with no additional data; `free_block` of the ciphertext is replaced."""
    blocks = [int.from_bytes(ciphertext[at : at + 16], "big") for at in range(0, len(ciphertext), 16)]
    blocks[free_block] = 0
    blocks.append(
        8 * len(ciphertext)
    )  # 64 bits for the additional data's length, which is 0, then 64 for this
    hash_keys = [int.from_bytes(encrypt_block(key, bytes(16)), "big") for key in (first_key, second_key)]
    masks = [
        int.from_bytes(encrypt_block(key, nonce + b"\0\0\0\1"), "big") for key in (first_key, second_key)
    ]
    wanted = masks[0] ^ masks[1] ^ ghash(hash_keys[0], blocks) ^ ghash(hash_keys[1], blocks)
    weight = len(blocks) - free_block
    slope = power(hash_keys[0], weight) ^ power(hash_keys[1], weight)
    blocks[free_block] = multiply(wanted, inverse(slope))
    tag = ghash(hash_keys[0], blocks) ^ masks[0]
    return b"".join(block.to_bytes(16, "big") for block in (*blocks[:-1], tag))
