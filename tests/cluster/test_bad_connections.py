"""Slow: what NATS takes from nodes that serve (credentials, a valid certificate, an answer) and gives back is all they need.

Run by `make slow`: nodes are given the time to fence themselves. Each time they say why, answer nothing that could be wrong, and
serve again by themselves, with everything that was acknowledged. What ends a connection of its own is tried in test_link.py.
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.cluster.test_bad_starts import node_of, ready_status
from tests.support.certificates import Authority
from tests.support.nats import NatsCluster
from tests.support.waiting import wait_until
from tokmesh.cluster.nats_conf import make_nkey

WITHIN_S = 30.0
ROUNDS = 2


class Pair:
    """Two nodes, so that neither is proved current without NATS. args: further options of both."""

    def __init__(self, tmp_path: Path, url: str, *args: str) -> None:
        self._nodes = [node_of(tmp_path, url, *args) for _ in range(2)]

    def __enter__(self) -> Self:
        try:
            for node in self._nodes:
                node.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._nodes:
            node.kill()

    @property
    def output(self) -> str:
        """What both wrote."""
        return "".join(node.output for node in self._nodes)

    def ask(self, node: int, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and answer."""
        return self._nodes[node].request(method, path, json=body, key=self._nodes[0].admin_key)

    def say(self, words: str) -> None:
        """Until both are not ready for that reason, and the doctor knows it."""
        for number, node in enumerate(self._nodes):
            wait_until(lambda: words in str(self.ask(number, "GET", "/ready?verbose")), f"it says {words!r}", WITHIN_S)  # noqa: B023
            told = node.command_line("doctor")
            assert told.returncode == 1 and words in told.stdout, told

    def refuse(self, token: str) -> None:
        """Until both answer nothing."""
        for node in range(2):
            wait_until(lambda: self._validated(node, token)[0] == 503, "it is fenced", WITHIN_S)  # noqa: B023
            assert self.ask(node, "POST", "/sessions", {"user_id": "u"})[0] == 503

    def serve(self, tokens: Sequence[str]) -> None:
        """Until both do."""
        for node in range(2):
            wait_until(lambda: ready_status(self._nodes[node]) == 200, "it is ready again", WITHIN_S)  # noqa: B023
            for token in tokens:
                status, answer = self._validated(node, token)
                assert status == 200 and answer["data"]["valid"], answer

    def create(self, node: int) -> str:
        """The token of a new session, once that node takes writes."""
        made: list[str] = []

        def attempt() -> bool:
            status, answer = self.ask(node, "POST", "/sessions", {"user_id": "u"})
            assert status in (200, 503), answer
            made.extend([answer["data"]["token"]] if status == 200 else [])
            return bool(made)

        wait_until(attempt, "it takes writes", WITHIN_S)
        return made[0]

    def _validated(self, node: int, token: str) -> tuple[int, Any]:
        return self.ask(node, "POST", "/tokens/validate", {"token": token})


def taken_and_given_back(pair: Pair, take: Callable[[], None], give: Callable[[], None], words: str) -> None:
    """They say so, refuse within their bounds, and are well again; more than once, as they must not wear out."""
    tokens: list[str] = []
    for _ in range(ROUNDS):
        tokens += [pair.create(node) for node in range(2)]
        take()
        pair.refuse(tokens[0])
        pair.say(words)
        give()
        pair.serve(tokens)


def test_credentials_taken_away_and_given_back(tmp_path: Path) -> None:
    folder, ours, others = tmp_path / "nats", make_nkey(), make_nkey()
    folder.mkdir()
    file = tmp_path / "credentials"
    file.write_text(ours.seed)
    file.chmod(0o600)
    with NatsCluster(folder, 1, extra=f"authorization {{ users: [{{ nkey: {ours.public} }}] }}\n") as nats:
        server = nats.servers[0]
        known = server.config.read_text()

        def reload(config: str) -> None:
            server.config.write_text(config)
            server.send_signal(signal.SIGHUP)

        pair = Pair(tmp_path, nats.urls[0], f"--cluster.nats.credentials_file={file}")
        with pair:
            unknown = known.replace(ours.public, others.public)
            taken_and_given_back(pair, lambda: reload(unknown), lambda: reload(known), "uthorization")
            # Or another key for the node, while the old one is good no more.
            reload(unknown)
            pair.say("uthorization")
            file.write_text(others.seed)
            pair.serve([])
        assert "Traceback" not in pair.output and ours.seed not in pair.output


def test_a_certificate_that_expires_and_is_renewed(tmp_path: Path) -> None:
    folder, authority = tmp_path / "nats", Authority(tmp_path)
    folder.mkdir()
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    authority.issue(cert, key, "127.0.0.1")
    with NatsCluster(folder, 1, extra=f'tls {{ cert_file: "{cert}", key_file: "{key}" }}\n') as nats:
        server = nats.servers[0]

        def expire() -> None:
            authority.issue(cert, key, "127.0.0.1", valid_days=-1)
            nats.restart(0)

        def renew() -> None:
            authority.issue(cert, key, "127.0.0.1")
            server.send_signal(signal.SIGHUP)

        url = nats.urls[0].replace("nats://", "tls://")
        pair = Pair(tmp_path, url, f"--cluster.nats.tls.ca_file={authority.ca_file}")
        with pair:
            taken_and_given_back(pair, expire, renew, "expired")
        assert "Traceback" not in pair.output


def test_a_server_that_says_nothing_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    folder.mkdir()
    with NatsCluster(folder, 1) as nats:
        with Pair(tmp_path, nats.urls[0]) as pair:
            taken_and_given_back(pair, lambda: nats.pause(0), lambda: nats.resume(0), "no answer within")
        assert "Traceback" not in pair.output
