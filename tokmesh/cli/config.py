"""`tokmesh config check|show|reference`."""

import argparse
from pathlib import Path

from tokmesh.config import Loaded, load, shown_lines
from tokmesh.errors import EX_OK


def load_options(options: argparse.Namespace, settings: list[tuple[str, str]], text: bytes | None = None) -> Loaded:
    """The configuration that a command line asks for, `--dir` among it; text: in place of the file's. Raises ConfigError."""
    if getattr(options, "dir", None):
        settings = [*settings, ("storage.dir", options.dir)]
    return load(settings, config_file=Path(options.config) if options.config else None, config_text=text)


def load_checked(options: argparse.Namespace, settings: list[tuple[str, str]], text: bytes | None = None) -> Loaded:
    """The same, and the certificates and NATS credentials it names can be used. Raises ConfigError."""
    from tokmesh.cli.nats_files import check_files
    from tokmesh.host.tls import server_context

    loaded = load_options(options, settings, text)
    if loaded.settings.server.https.enabled:
        server_context(loaded.settings.server.https.tls)
    if loaded.settings.cluster.enabled:
        check_files(loaded.settings.cluster.nats)
    return loaded


def run(options: argparse.Namespace, settings: list[tuple[str, str]]) -> int:
    """Checks, shows or documents the configuration. Raises ConfigError."""
    from tokmesh.host import process
    from tokmesh.host.encryption_keys import read_keys

    if options.action == "reference":
        from tokmesh.cli.reference import reference_markdown

        print(reference_markdown(), end="")
        return EX_OK
    if options.action == "show":
        for line in shown_lines(load_options(options, settings)):
            print(line)
        return EX_OK
    process.harden()  # from here on there are keys in memory
    encryption = load_checked(options, settings).settings.storage.encryption
    if not encryption.key_command:  # looking must not run anything
        read_keys(encryption)
    print("configuration is good")
    return EX_OK
