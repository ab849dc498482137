"""The configuration of the NATS servers that a cluster of TokMesh runs on, and the nkeys of its users.

One text for all servers: what differs is the name, which comes from the environment (not from the option --name: a reload does not
see that). It holds no secret. A user proves itself by signing with its nkey's seed; the servers know the public half, which
stands at the top of the text or comes from the environment too.

The user of TokMesh may do what TokMesh does and nothing else: `permissions` is the list. Whoever holds its seed can still not
delete or purge a stream, make another, or read another account.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tokmesh.cluster.subjects import INBOX_PREFIX, Subjects
from tokmesh.errors import ApiError

HOSTS_MAX: Final = 9
REPLICAS: Final = 3  # of a stream; so many servers at least
# Imported from the system account: what each server answers tells its version, and whether it syncs always.
SERVERS_SUBJECT: Final = "$SYS.REQ.SERVER.PING.VARZ"
NAME_VARIABLE: Final = "NATS_SERVER_NAME"
TOKMESH_VARIABLE: Final = "TOKMESH_NKEY"
SYSTEM_VARIABLE: Final = "SYSTEM_NKEY"

_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")


class Nkey(NamedTuple):
    """The two halves of a user's nkey. The seed is secret."""

    public: str
    seed: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration is made for. cluster: `cluster.name` of TokMesh. hosts: names or addresses of the NATS servers."""

    cluster: str
    hosts: tuple[str, ...]
    folder: str = "/etc/nats"
    store: str = "/var/lib/nats"


def check_hosts(text: str) -> tuple[str, ...]:
    """Hosts of NATS servers from text with commas. Raises TM-ARG-1001."""
    hosts = tuple(part.strip() for part in text.split(","))
    for host in hosts:
        if not _HOST_NAME.fullmatch(host) and not _is_address(host):
            raise ApiError("TM-ARG-1001", {"--hosts": "must be host names or addresses, without ports, with commas between"})
    if len(set(hosts)) != len(hosts):
        raise ApiError("TM-ARG-1001", {"--hosts": "must name each server once"})
    if not (REPLICAS <= len(hosts) <= HOSTS_MAX and len(hosts) % 2):
        raise ApiError("TM-ARG-1001", {"--hosts": f"must be an odd number of servers from {REPLICAS} to {HOSTS_MAX}"})
    return hosts


def check_path(option: str, text: str) -> str:
    """An absolute path that needs no escapes in a configuration. Raises TM-ARG-1001."""
    if not re.fullmatch(r"/[A-Za-z0-9._/-]*", text):
        raise ApiError("TM-ARG-1001", {option: "must be an absolute path of letters, digits and . _ / -"})
    return text.rstrip("/")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def make_nkey() -> Nkey:
    """A fresh nkey of a user. Raises TM-CFG-1006 without the extra."""
    import os

    try:
        import nkeys
    except ImportError:
        raise ApiError("TM-CFG-1006", {"nkeys": "needs nkeys: pip install 'tokmesh[cluster]'"}) from None
    seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return Nkey(nkeys.from_seed(seed).public_key.decode(), seed.decode())


def permissions(cluster: str) -> tuple[list[str], list[str]]:
    """(subjects that TokMesh publishes to, subjects that it subscribes to). JetStream itself writes for its consumers."""
    subjects = Subjects(cluster)
    stream = subjects.stream
    publish = list(subjects.patterns)
    publish += [f"$JS.API.STREAM.{action}.{stream}" for action in ("CREATE", "UPDATE", "INFO", "MSG.GET")]
    publish += [f"$JS.API.CONSUMER.CREATE.{stream}", f"$JS.API.CONSUMER.CREATE.{stream}.>"]
    publish += [f"$JS.API.CONSUMER.{action}.{stream}.*" for action in ("DELETE", "INFO")]
    publish += [f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}.>", f"$JS.FC.{stream}.>"]
    both = [f"tokmesh.{cluster}.core.>", f"{INBOX_PREFIX}.>"]
    return [*publish, *both, SERVERS_SUBJECT], both


def render(plan: Plan, nkeys: tuple[str, str] | None) -> str:
    """The configuration. nkeys: public halves of TokMesh's user and of the system account's; None: from the environment."""
    publish, subscribe = permissions(plan.cluster)
    routes = "\n".join(f'    "nats-route://{f"[{host}]" if ":" in host else host}:6222"' for host in plan.hosts)
    if nkeys is None:
        users = f"# The environment has the public halves of two nkeys: {TOKMESH_VARIABLE} and {SYSTEM_VARIABLE}.\n"
    else:
        users = f"# The public halves of two nkeys.\n{TOKMESH_VARIABLE}: {nkeys[0]}\n{SYSTEM_VARIABLE}: {nkeys[1]}\n"
    return _TEXT.format(
        plan=plan, routes=routes, users=users, publish=_listed(publish), subscribe=_listed(subscribe),
        servers=SERVERS_SUBJECT, name=NAME_VARIABLE, tokmesh=TOKMESH_VARIABLE, system=SYSTEM_VARIABLE,
    )  # fmt: skip


def _listed(subjects: Sequence[str]) -> str:
    return "\n".join(f'            "{subject}"' for subject in subjects)


_TEXT: Final = """\
# NATS for the TokMesh cluster "{plan.cluster}": nats-server 2.15 or newer, the same file on every server.
#
#     {name}=NAME nats-server -c {plan.folder}/nats-server.conf     with another NAME on each
#
# Written by `tokmesh cluster init --print-nats-conf`. It holds no secret.

{users}
server_name: ${name}
listen: "0.0.0.0:4222"  # clients: TokMesh
http: "127.0.0.1:8222"  # monitoring, for this machine only: it knows no passwords

tls {{
  cert_file: "{plan.folder}/tls/server.pem"
  key_file: "{plan.folder}/tls/server.key"
  ca_file: "{plan.folder}/tls/ca.pem"
  timeout: 5
}}

cluster {{
  name: "tokmesh-nats"
  listen: "0.0.0.0:6222"
  # Servers prove themselves to each other by certificates of that authority. Nobody else should have one.
  tls {{
    cert_file: "{plan.folder}/tls/server.pem"
    key_file: "{plan.folder}/tls/server.key"
    ca_file: "{plan.folder}/tls/ca.pem"
    verify: true
    timeout: 5
  }}
  routes: [
{routes}
  ]
  no_advertise: true  # clients use the names that they were given, which the certificates are for
}}

jetstream {{
  store_dir: "{plan.store}"
  # A publish is acknowledged when a majority has it on disk. With anything else a power cut can lose the stream.
  sync_interval: always
  max_memory_store: 256MB  # state of consumers
  max_file_store: 100GB  # per server; see deploy/nats/README.md on sizing
}}

accounts {{
  TOKMESH {{
    jetstream {{
      max_streams: 1
      max_consumers: 1024
    }}
    imports: [{{ service: {{ account: SYSTEM, subject: "{servers}" }} }}]
    users: [{{
      nkey: ${tokmesh}
      permissions {{
        publish {{ allow: [
{publish}
        ] }}
        subscribe {{ allow: [
{subscribe}
        ] }}
      }}
    }}]
  }}
  # For operators: `nats server report jetstream`, removal of a dead server from the group.
  SYSTEM {{
    exports: [{{ service: "{servers}", accounts: [TOKMESH], response_type: stream }}]
    users: [{{ nkey: ${system} }}]
  }}
}}
system_account: SYSTEM

max_connections: 1024
max_payload: 1MB
max_pending: 64MB  # what a client may leave unread before it is cut off
ping_interval: "10s"
ping_max: 2
write_deadline: "5s"
lame_duck_duration: "30s"
lame_duck_grace_period: "5s"
"""
