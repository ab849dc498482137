"""The one table of errors: code, HTTP status, message, CLI exit code.

Every refusal a client, an operator or a script can meet is a row here. A message is fixed text: it never
carries input, an exception's text or a secret; what varies goes into `details`, built by the code that raises.
"""

from typing import Any, Final, NamedTuple

# sysexits(3), the subset the command line uses.
EX_OK: Final = 0
EX_FAILURE: Final = 1
EX_USAGE: Final = 64
EX_DATAERR: Final = 65
EX_UNAVAILABLE: Final = 69
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75  # "not really an error": the next start puts it right
EX_CONFIG: Final = 78


class ErrorSpec(NamedTuple):
    """One row: the HTTP status (0 where HTTP never shows it), the message, the exit code of the command line."""

    status: int
    message: str
    exit_code: int


# A row marked "reserved" is raised by no part of this version.
ERRORS: Final[dict[str, ErrorSpec]] = {
    "TM-SYS-4000": ErrorSpec(400, "Bad request", EX_DATAERR),
    "TM-SYS-4040": ErrorSpec(404, "No such route", EX_DATAERR),
    "TM-SYS-4050": ErrorSpec(405, "Method not allowed", EX_DATAERR),
    "TM-SYS-4130": ErrorSpec(413, "Request body too large", EX_DATAERR),
    "TM-SYS-4290": ErrorSpec(429, "Rate limit exceeded", EX_UNAVAILABLE),
    "TM-SYS-5000": ErrorSpec(500, "Internal error", EX_FAILURE),
    "TM-SYS-5001": ErrorSpec(503, "Storage cannot accept writes", EX_UNAVAILABLE),
    "TM-SYS-5030": ErrorSpec(503, "Service unavailable", EX_UNAVAILABLE),
    "TM-AUTH-4010": ErrorSpec(401, "API key required", EX_USAGE),
    "TM-AUTH-4011": ErrorSpec(401, "API key not valid", EX_DATAERR),
    "TM-AUTH-4012": ErrorSpec(401, "API key disabled or expired", EX_DATAERR),
    "TM-AUTH-4014": ErrorSpec(401, "Request timestamp outside the allowed window", EX_DATAERR),  # reserved
    "TM-AUTH-4015": ErrorSpec(401, "Nonce already used", EX_DATAERR),  # reserved
    "TM-AUTH-4030": ErrorSpec(403, "Role does not permit this operation", EX_DATAERR),
    "TM-AUTH-4031": ErrorSpec(403, "Address not allowed", EX_DATAERR),
    "TM-SESS-4001": ErrorSpec(400, "Session field breaks a rule", EX_DATAERR),
    "TM-SESS-4002": ErrorSpec(429, "Session quota exceeded", EX_UNAVAILABLE),
    "TM-SESS-4040": ErrorSpec(404, "Session not found", EX_DATAERR),
    "TM-SESS-4041": ErrorSpec(404, "Session expired", EX_DATAERR),
    "TM-SESS-4090": ErrorSpec(409, "Session id already exists", EX_DATAERR),
    "TM-SESS-4091": ErrorSpec(409, "Session version conflict", EX_DATAERR),
    "TM-TOKN-4000": ErrorSpec(400, "Malformed token", EX_DATAERR),
    "TM-TOKN-4010": ErrorSpec(401, "Token unknown", EX_DATAERR),
    "TM-TOKN-4011": ErrorSpec(401, "Token expired", EX_DATAERR),
    "TM-TOKN-4012": ErrorSpec(401, "Token revoked", EX_DATAERR),
    "TM-TOKN-4090": ErrorSpec(409, "Token already in use", EX_DATAERR),
    "TM-ARG-1001": ErrorSpec(400, "Bad argument", EX_USAGE),
    "TM-ARG-1002": ErrorSpec(400, "Missing argument", EX_USAGE),
    "TM-ARG-1003": ErrorSpec(400, "Conflicting arguments", EX_USAGE),
    "TM-ADMIN-4030": ErrorSpec(403, "Administration is not permitted for this key", EX_DATAERR),  # reserved
    "TM-ADMIN-4031": ErrorSpec(403, "Administration is not permitted from this address", EX_DATAERR),
    "TM-ADMIN-4041": ErrorSpec(404, "No such administrative resource", EX_DATAERR),
    "TM-ADMIN-4091": ErrorSpec(409, "Administrative conflict", EX_DATAERR),
    "TM-ADMIN-4130": ErrorSpec(413, "Upload too large", EX_DATAERR),
    "TM-ADMIN-4221": ErrorSpec(422, "Backup file not valid", EX_DATAERR),
    "TM-ADMIN-4291": ErrorSpec(429, "Too many administrative jobs", EX_UNAVAILABLE),
    "TM-ADMIN-5001": ErrorSpec(500, "Administrative job failed", EX_FAILURE),  # reserved
    "TM-ADMIN-5031": ErrorSpec(503, "Restore under way", EX_UNAVAILABLE),
    "TM-CLST-4090": ErrorSpec(409, "Node id in use", EX_CONFIG),
    "TM-CLST-5030": ErrorSpec(503, "No quorum", EX_UNAVAILABLE),
    "TM-CLST-5040": ErrorSpec(504, "Cluster timeout", EX_UNAVAILABLE),
    "TM-CLST-5050": ErrorSpec(500, "Divergence between nodes", EX_FAILURE),
    "TM-CFG-1001": ErrorSpec(0, "Configuration value has the wrong type", EX_CONFIG),
    "TM-CFG-1002": ErrorSpec(0, "Configuration value out of range", EX_CONFIG),
    "TM-CFG-1003": ErrorSpec(0, "File named in the configuration is missing", EX_CONFIG),
    "TM-CFG-1004": ErrorSpec(0, "File permissions are not acceptable", EX_CONFIG),
    "TM-CFG-1005": ErrorSpec(0, "Configuration values conflict", EX_CONFIG),
    "TM-CFG-1006": ErrorSpec(0, "Configuration needs something that is not there", EX_CONFIG),
    "TM-CFG-1007": ErrorSpec(0, "Certificate or key not usable", EX_CONFIG),
    "TM-CLI-1001": ErrorSpec(0, "Standard output cannot be written", EX_IOERR),
    "TM-WAL-1001": ErrorSpec(0, "Not a log of TokMesh", EX_DATAERR),
}


class ApiError(Exception):
    """A refusal with a code of the table.

    code: a key of ERRORS, in full ("TM-SESS-4040").
    details: JSON-serialisable facts for the client (which field, which limit); no secret, no exception's text.
    retry_after_s: whole seconds for the `Retry-After` header of 429 and 503 answers; those get 1 when it is None.
    """

    def __init__(
        self, code: str, details: dict[str, Any] | None = None, *, retry_after_s: int | None = None
    ) -> None:
        spec = ERRORS[code]
        super().__init__(f"{code}: {spec.message}")
        self.code = code
        self.status = spec.status
        self.message = spec.message
        self.details = details
        self.retry_after_s = retry_after_s
