"""Logs: constant messages with fields, as text for people or JSON for machines."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

from reconciler.settings import LogFormat, Settings

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class JsonLines(logging.Formatter):
    """One JSON object per line; the same field names everywhere."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class TextLines(logging.Formatter):
    """`12:30:45 info revision applied  key=default/rules revision=main@sha1:...`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = " ".join(f"{name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{time} {record.levelname.lower():<7} {record.getMessage()}"
        line = f"{line}  {fields}" if fields else line
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: object) -> str:
    is_plain = isinstance(value, str | int | float)
    text = str(value) if is_plain else orjson.dumps(value, default=str).decode()
    # What others made may hold line breaks and terminal codes.
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return f'"{text}"' if " " in text or not text else text


def configure(settings: Settings) -> None:
    """Log to stderr, as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format is LogFormat.JSON else TextLines())
    # It tells of every single event.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    # Who wished what is written down whatever else is not.
    logging.getLogger("scriptops.audit").setLevel(logging.INFO)
    logging.basicConfig(level=settings.log_level.value.upper(), handlers=[handler], force=True)
