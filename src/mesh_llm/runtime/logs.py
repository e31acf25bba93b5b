"""What the node says of itself, on standard error: a line for people or a JSON object for programs."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["pretty", "json"]

ROOT = "mesh_llm"


def configure(format_: Format) -> None:
    """Call once, from the command line."""
    handler = StandardErrorHandler()
    handler.setFormatter(JsonFormatter() if format_ == "json" else logging.Formatter("%(message)s"))
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


class StandardErrorHandler(logging.Handler):
    """Writes to what `sys.stderr` is at that moment: progress bars put themselves in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "event", "message", ...}`; fields come by `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        return json.dumps(
            {
                "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
                "level": record.levelname.lower(),
                "event": record.name.removeprefix(f"{ROOT}."),
                "message": record.getMessage(),
            }
            | fields
        )
