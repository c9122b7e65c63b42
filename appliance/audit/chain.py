"""Following the chain line by line: the IO-free state machine that both the verifier and the writer's restart use.

Invariants, numbered as the tests name them. After ``feed`` has accepted a line:

1. *Order*: the line begins with the one prefix that its place allows: the next ``seq`` (records) or the current one (seals), and
   the hash of the line before. So nothing was removed, inserted, repeated or moved before this line.
2. *Integrity*: the line's own hash is right. So nothing in it was edited by someone who did not also redo the chain.
3. *Seals*: a seal stands only where records precede it; its signature covers the hash of the record just before it. Signatures are
   checked when asked (``check_seals``) or at the end (``last_seal_holds``): the last good signature vouches for the whole chain
   before it, seals included, since every line is hashed into the next. Checking each one finds *where* a redone chain begins.
4. *Segments*: a segment is named after its first record, starts where the one before ended, and ends with a seal.
5. *End*: the chain reaches the signed head: its line with the head's hash was passed at the head's ``seq``. So nothing is missing
   at the end. What lies beyond the head is whole, sealed batches (the head lags by less than one batch after a crash).
6. *Key*: the first line hangs on a genesis made of the public key, and the log starts at record 1.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.audit.record import HASH_TAIL_BYTES, SEAL_MARK, genesis, line_prefix, seal_statement
from appliance.audit.signing import is_signed, raw

_SIGNATURE_HEX: Final = 128
_HASH_MARK: Final = b',"hash":"'


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong and with which record it begins.

    Attributes:
        seq: the first record number that cannot be trusted (or is missing).
        kind: ``edited``, ``sequence`` (removed, inserted, reordered, repeated), ``signature``, ``truncated``, ``unsealed``,
            ``segment``, ``head``.
        message: one sentence for the operator.
    """

    seq: int
    kind: str
    message: str


class Chain:
    """The state after the lines fed so far.

    Args:
        key: public key of the log.
        seq, last_hash: where to start: the end of an already trusted part, or nothing for the beginning.
        check_seals: verify each seal's signature as it passes (about 0.1 ms each).
    """

    def __init__(self, key: Ed25519PublicKey, *, seq: int = 0, last_hash: bytes | None = None, check_seals: bool = False) -> None:
        self._key = key
        self._check_seals = check_seals
        self.seq = seq
        self.last_hash = last_hash or genesis(raw(key))
        self.sealed_seq = seq
        self.sealed_hash = self.last_hash
        self._seal: tuple[bytes, bytes] | None = None

    def feed(self, line: bytes) -> Fault | None:
        """Take the next line (with its newline); None when it may stand there."""
        prefix = line_prefix(self.seq + 1, self.last_hash)
        if not line.startswith(prefix):
            return self._feed_seal(line)
        fault = self._integrity(line)
        if fault is None:
            self.seq += 1
            self.last_hash = line[-67:-3]
        return fault

    @property
    def is_sealed(self) -> bool:
        """Whether the last line fed is a seal (or the trusted start)."""
        return self.sealed_seq == self.seq

    def last_seal_holds(self) -> bool:
        """Whether the signature of the last seal fed is good; true when there was none."""
        if self._seal is None:
            return True
        statement, signature = self._seal
        return is_signed(self._key, signature, statement)

    def _feed_seal(self, line: bytes) -> Fault | None:
        prefix = line_prefix(self.seq, self.last_hash) + SEAL_MARK
        if not line.startswith(prefix) or self.is_sealed:
            return Fault(self.seq + 1, "sequence", f"record {self.seq + 1} is not where the chain expects it")
        fault = self._integrity(line)
        if fault is not None:
            return fault
        start = len(prefix) + len(b'"signature":"')
        signature = line[start : start + _SIGNATURE_HEX]
        self._seal = (seal_statement(self.seq, self.last_hash), signature)
        if self._check_seals and not self.last_seal_holds():
            first = self.sealed_seq + 1
            return Fault(first, "signature", f"records {first} to {self.seq} carry a signature that is not the log's")
        self.sealed_seq = self.seq
        self.last_hash = self.sealed_hash = line[-67:-3]
        return None

    def _integrity(self, line: bytes) -> Fault | None:
        body, tail = line[:-HASH_TAIL_BYTES], line[-HASH_TAIL_BYTES:]
        digest = hashlib.sha256(body + b"}").hexdigest().encode()
        if tail == b'%b%b"}\n' % (_HASH_MARK, digest):
            return None
        seq = self.seq if line.startswith(line_prefix(self.seq, self.last_hash) + SEAL_MARK) else self.seq + 1
        return Fault(max(seq, 1), "edited", f"record {seq} does not match its hash")
