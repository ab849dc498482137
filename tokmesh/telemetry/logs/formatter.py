"""One record as one line of JSON, whatever its message, exception or extra fields contain.

A line:
{"timestamp":"2025-12-18T09:30:00.123Z","level":"INFO","logger":"tokmesh.log","message":"…","request_id":"req-…",…}.
`request_id` stands on every line that is logged while a request is handled; further fields come from `extra=`; an
exception adds "error" (type and text) and "stack".
"""

import json
import logging
import time
import traceback
from typing import Any, Final

from tokmesh.telemetry.logs.levels import level_name
from tokmesh.telemetry.logs.redaction import clean, plain, text_of

# The other characters that some readers take for the end of a line; JSON lets them stand unescaped.
_LINE_ENDS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
}
_OWN: Final = frozenset(("timestamp", "level", "logger", "message", "error", "stack"))


class JsonFormatter(logging.Formatter):
    """Makes the one line of a record, without its newline. Never raises."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the format string
            message = f"{record.msg!s} (arguments do not fit)"
        fields: dict[str, Any] = {
            "timestamp": _timestamp(record.created),
            "level": level_name(record.levelno),
            "logger": clean(record.name),
            "message": clean(message),
        }
        for name, value in list(record.__dict__.items()):
            if name not in _STANDARD:
                fields[clean(name + "_" if name in _OWN else name)] = plain(value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = clean(f"{type(error).__name__}: {text_of(error)}")
            fields["stack"] = clean("".join(traceback.format_exception(error, limit=-32)).rstrip(), keep_end=True)
        elif record.stack_info:
            fields["stack"] = clean(record.stack_info, keep_end=True)
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).translate(_LINE_ENDS)


def _timestamp(created: float) -> str:
    milliseconds = int(created * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


