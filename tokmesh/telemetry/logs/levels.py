"""The four levels of a log line, and the numbers that `logging` has for them."""

import logging
from typing import Final

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR")
_NUMBERS: Final = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARN": logging.WARNING, "ERROR": logging.ERROR}


def level_name(number: int) -> str:
    """DEBUG, INFO, WARN or ERROR for any number that `logging` uses."""
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    return "INFO" if number >= logging.INFO else "DEBUG"


def level_number(name: str) -> int:
    """The number for debug, info, warn or error in any case; ValueError for another name."""
    number = _NUMBERS.get(name.upper())
    if number is None:
        raise ValueError(f"unknown log level: {name!r}; one of debug, info, warn, error")
    return number
