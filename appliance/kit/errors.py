"""The one error type of the house and the one table that says what each code means outside.

Owns: stable codes, their HTTP status, gRPC status, process exit code and OpenAI error type.
Does not own: messages (at the place that raises) or translations (``appliance.kit.messages``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one error code looks like at each edge.

    Attributes:
        http: HTTP status.
        grpc: canonical gRPC status name.
        exit: process exit code of the CLI (2..63; 1 is left for bugs).
        openai_type: ``error.type`` in the OpenAI error shape.
    """

    http: int
    grpc: str
    exit: int
    openai_type: str = "invalid_request_error"


OUTCOMES: Final[dict[str, Outcome]] = {
    # the caller
    "invalid_request": Outcome(400, "INVALID_ARGUMENT", 2),
    "malformed_json": Outcome(400, "INVALID_ARGUMENT", 2),
    "context_length_exceeded": Outcome(400, "INVALID_ARGUMENT", 2),
    "unauthenticated": Outcome(401, "UNAUTHENTICATED", 10, "authentication_error"),
    "forbidden": Outcome(403, "PERMISSION_DENIED", 11, "permission_error"),
    "not_found": Outcome(404, "NOT_FOUND", 12),
    "model_not_found": Outcome(404, "NOT_FOUND", 12),
    "method_not_allowed": Outcome(405, "UNIMPLEMENTED", 2),
    "conflict": Outcome(409, "ALREADY_EXISTS", 13),
    "too_large": Outcome(413, "INVALID_ARGUMENT", 14),
    "unsupported_type": Outcome(415, "INVALID_ARGUMENT", 15),
    "rate_limited": Outcome(429, "RESOURCE_EXHAUSTED", 16, "rate_limit_error"),
    # a document that cannot be read; the rest of the batch goes on
    "document_corrupt": Outcome(422, "INVALID_ARGUMENT", 20),
    "document_encrypted": Outcome(422, "INVALID_ARGUMENT", 20),
    "document_empty": Outcome(422, "INVALID_ARGUMENT", 20),
    "document_too_long": Outcome(422, "INVALID_ARGUMENT", 20),
    "document_bomb": Outcome(422, "INVALID_ARGUMENT", 20),
    "document_timeout": Outcome(422, "DEADLINE_EXCEEDED", 20),
    # what stands on the disk
    "settings_invalid": Outcome(500, "FAILED_PRECONDITION", 30, "server_error"),
    "models_file_invalid": Outcome(500, "FAILED_PRECONDITION", 31, "server_error"),
    "snapshot_missing": Outcome(503, "FAILED_PRECONDITION", 32, "server_error"),
    "snapshot_altered": Outcome(503, "DATA_LOSS", 33, "server_error"),
    "audit_broken": Outcome(500, "DATA_LOSS", 34, "server_error"),
    "home_invalid": Outcome(500, "FAILED_PRECONDITION", 35, "server_error"),
    "home_busy": Outcome(503, "UNAVAILABLE", 36, "server_error"),
    # the model hub
    "model_in_use": Outcome(409, "FAILED_PRECONDITION", 37, "server_error"),
    "model_refused": Outcome(422, "INVALID_ARGUMENT", 38),
    "snapshot_unsigned": Outcome(503, "PERMISSION_DENIED", 46, "server_error"),
    "store_unreachable": Outcome(503, "UNAVAILABLE", 39, "server_error"),
    # the bundle and the site it is installed on
    "bundle_invalid": Outcome(422, "INVALID_ARGUMENT", 50),
    "bundle_unsigned": Outcome(422, "PERMISSION_DENIED", 51),
    "bundle_altered": Outcome(422, "DATA_LOSS", 52),
    "bundle_incomplete": Outcome(422, "DATA_LOSS", 53),
    "bundle_expired": Outcome(422, "FAILED_PRECONDITION", 54),
    "bundle_older": Outcome(409, "FAILED_PRECONDITION", 55),
    "bundle_incompatible": Outcome(422, "FAILED_PRECONDITION", 56),
    "trust_invalid": Outcome(422, "PERMISSION_DENIED", 57),
    "site_invalid": Outcome(500, "FAILED_PRECONDITION", 58, "server_error"),
    "site_busy": Outcome(503, "UNAVAILABLE", 59, "server_error"),
    "install_failed": Outcome(500, "ABORTED", 60, "server_error"),
    "upgrade_reverted": Outcome(500, "ABORTED", 61, "server_error"),
    "smoke_failed": Outcome(500, "FAILED_PRECONDITION", 62, "server_error"),
    "egress_detected": Outcome(500, "PERMISSION_DENIED", 63, "server_error"),
    "proof_invalid": Outcome(422, "DATA_LOSS", 49),
    # durable tasks
    "task_invalid": Outcome(422, "INVALID_ARGUMENT", 17),  # cycle, unknown dependency, input that does not fit its schema
    "task_state": Outcome(409, "FAILED_PRECONDITION", 18),  # the status does not allow it
    "stale_claim": Outcome(409, "ABORTED", 19),  # the fencing token is not that of the current claim
    "result_invalid": Outcome(422, "INVALID_ARGUMENT", 21),
    "effect_unknown": Outcome(409, "FAILED_PRECONDITION", 22),
    "event_unknown": Outcome(500, "FAILED_PRECONDITION", 23, "server_error"),  # the log was written by a newer release
    "log_unsafe": Outcome(503, "FAILED_PRECONDITION", 24, "server_error"),  # the event log's server is too old or cannot be proved to sync
    "query_refused": Outcome(422, "INVALID_ARGUMENT", 25),
    "query_timeout": Outcome(504, "DEADLINE_EXCEEDED", 26, "server_error"),
    "executor_failed": Outcome(502, "UNAVAILABLE", 27, "server_error"),
    # schema-guided answers, tools, guardrails, quotas
    "schema_invalid": Outcome(400, "INVALID_ARGUMENT", 28),
    "schema_unsupported": Outcome(400, "UNIMPLEMENTED", 28),  # names the keywords that the engine cannot enforce
    "schema_unsatisfied": Outcome(422, "FAILED_PRECONDITION", 29),  # no answer that satisfies it within the allowed rounds
    "template_invalid": Outcome(422, "INVALID_ARGUMENT", 45),
    "content_blocked": Outcome(400, "PERMISSION_DENIED", 47),  # a guardrail policy; 400 as OpenAI's content filter
    "approval_required": Outcome(409, "FAILED_PRECONDITION", 48),
    "tool_failed": Outcome(502, "UNAVAILABLE", 27, "server_error"),
    "quota_exceeded": Outcome(429, "RESOURCE_EXHAUSTED", 16, "rate_limit_error"),
    # the machine and its neighbours
    "unavailable": Outcome(503, "UNAVAILABLE", 40, "server_error"),
    "overloaded": Outcome(503, "RESOURCE_EXHAUSTED", 41, "server_error"),
    "disk_full": Outcome(507, "RESOURCE_EXHAUSTED", 42, "server_error"),
    "upstream_failed": Outcome(502, "UNAVAILABLE", 43, "server_error"),
    "upstream_timeout": Outcome(504, "DEADLINE_EXCEEDED", 44, "server_error"),
    "cancelled": Outcome(499, "CANCELLED", 45, "server_error"),
    "internal": Outcome(500, "INTERNAL", 1, "server_error"),
}


class ApplianceError(Exception):
    """Something went wrong in a way that the caller or the operator can act on.

    Args:
        code: a key of :data:`OUTCOMES`.
        message: one sentence, no secrets, safe to show to the caller.
        hint: what to do next, for someone without internet.
        context: facts for the log (never shown to a foreign caller).
    """

    def __init__(self, code: str, message: str, *, hint: str = "", **context: object) -> None:
        super().__init__(message)
        if code not in OUTCOMES:
            raise KeyError(f"unknown error code {code!r}")
        self.code = code
        self.message = message
        self.hint = hint
        self.context = context

    @property
    def outcome(self) -> Outcome:
        """The row of the table for this error."""
        return OUTCOMES[self.code]

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def not_found(what: str) -> ApplianceError:
    """The answer for absent *and* foreign things: nobody can tell them apart."""
    return ApplianceError("not_found", f"{what} not found", hint="check the name, or ask its owner for access")
