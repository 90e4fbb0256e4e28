"""Options that tell of hosts and of the link between them."""

from __future__ import annotations

import argparse
import re

from dlbench.report.forecast_launches import parsed_rate


def hosts(text: str) -> str:
    """Hosts and slots, such as a:1,b:1."""
    if not re.fullmatch(r"[\w.-]+:[1-9]\d*(,[\w.-]+:[1-9]\d*)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of hosts and slots such as a:1,b:1")
    return text


def link(text: str) -> float:
    """The bits a second of a rate such as 10gbit."""
    try:
        return parsed_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def slots(hosts: str) -> list[int]:
    """How many ranks each has a place for."""
    return [int(host.rpartition(":")[2]) for host in hosts.split(",")]
