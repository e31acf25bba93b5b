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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else logging.Formatter("%(message)s"))
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


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
