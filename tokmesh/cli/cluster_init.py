"""`tokmesh cluster init`: what a cluster needs before its first node starts."""

import argparse
import sys
from pathlib import Path

from tokmesh.errors import EX_OK, ApiError


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Prints the configuration of the NATS servers to standard output and what is secret to standard error. Raises ApiError."""
    from tokmesh.cluster.nats_conf import Plan, check_hosts, check_path, make_nkey, render

    if not options.print_nats_conf:
        raise ApiError("TM-ARG-1002", {"--print-nats-conf": "says what to print, and is all there is"})
    plan = Plan(
        cluster=_checked_name(options.name),
        hosts=check_hosts(options.hosts),
        folder=check_path("--conf-dir", options.conf_dir),
        store=check_path("--store-dir", options.store_dir),
    )
    if options.no_keys:
        print(render(plan, None), end="")
        return EX_OK
    user, system = make_nkey(), make_nkey()
    print(render(plan, (user.public, system.public)), end="", flush=True)
    print(
        "Two secrets, shown once and kept nowhere; the configuration has their public halves. Each goes into a file that only its\n"
        "user may read. This one is TokMesh's, named by cluster.nats.credentials_file on every node:\n"
        f"{user.seed}\n"
        "This one is the operators', of the system account, for the tool `nats`:\n"
        f"{system.seed}",
        file=sys.stderr,
    )
    return EX_OK


def _checked_name(text: str) -> str:
    """By the rule of `cluster.name`. Raises TM-ARG-1001."""
    from tokmesh.config.keys import KEYS
    from tokmesh.config.values import BadValue

    kind = next(key.row.kind for key in KEYS if key.name == "cluster.name")
    try:
        name: str = kind.parse(text, Path())
    except BadValue:
        raise ApiError("TM-ARG-1001", {"--name": f"must be {kind.rule}"}) from None
    return name
