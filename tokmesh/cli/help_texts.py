"""What `--help` says below a command: examples, exit codes, and what to know before."""

from typing import Final

DESCRIPTION: Final = """\
TokMesh is a session and token server: it answers, very often and very fast, whether a token is good.

  tokmesh serve                          start a server; the first start prints an admin key once
  tokmesh key create --role=validator    make a key for an application (on the server's host)
  tokmesh config show                    what every setting is, and where it came from
  tokmesh doctor                         what is wrong with the server on this host, in words
  tokmesh wal verify                     whether the log of a stopped server is whole
"""

SETTINGS_HELP: Final = """\
Any setting can be given as --key=value; docs/configuration.md and `tokmesh config show` list them. Sources, strongest
first: command line, environment (TOKMESH_SERVER_HTTP_ADDRESS), YAML file (--config FILE or TOKMESH_CONFIG), defaults.
"""

SERVE_EXAMPLES: Final = """
examples:
  tokmesh serve
  tokmesh serve --config=/etc/tokmesh/tokmesh.yaml
  tokmesh serve --server.http.address=0.0.0.0:5080 --storage.dir=/var/lib/tokmesh
  TOKMESH_SESSION_TTL_DEFAULT=8h tokmesh serve --telemetry.logging.level=debug

signals:
  SIGTERM, SIGINT   stop accepting, finish what is in flight, close the log, exit 0
  SIGHUP            read the configuration again and apply what can be applied
"""

KEY_EXAMPLES: Final = """
examples:
  tokmesh key create --role=issuer --description="checkout service"
  tokmesh key create --role=metrics --allow=10.0.0.0/8 --expires-in=90d
  tokmesh key list --storage.dir=/var/lib/tokmesh
  tokmesh key disable tmak-01jf3m7x5v8k2q9w4r6t1y0zab

The commands talk to the running server through the Unix socket `admin.sock` in its data directory. They need no API
key, but must run on the same host as the same user (or root).
"""

CONFIG_EXAMPLES: Final = """
examples:
  tokmesh config check --config=tokmesh.yaml && echo good
  tokmesh config show --config=tokmesh.yaml --session.ttl.default=8h
"""

LOG_LEVEL_EXAMPLES: Final = """
examples:
  tokmesh log-level get
  tokmesh log-level set debug --for=10m
"""

WAL_EXAMPLES: Final = """
examples:
  tokmesh wal verify --dir=/var/lib/tokmesh && echo whole
  tokmesh wal stats --dir=/backup/tokmesh/log --json
  tokmesh wal dump --dir=/var/lib/tokmesh --from=1000 --kind=SessionsRevoked --kind=KeyCreated
  tokmesh wal salvage --dir=/var/lib/tokmesh --to=/var/lib/tokmesh-salvaged
  tokmesh wal verify --config=/etc/tokmesh/tokmesh.yaml     (an encrypted log: the settings name its keys)

The log must be that of a stopped server, or a copy made while it was stopped. Nothing of it is changed. The format is
told in docs/storage-format.md.

exit codes:
  0    the log is whole (salvage: every record was taken)
  65   damaged, of a later format, or no log at all (salvage: records are missing, or nothing could be read)
  69   a running server has it open, or the disk refused to write
  74   standard output cannot be written
  75   whole but for a torn tail: a write that a crash cut short, which the next start repairs
  78   missing, a symbolic link, open to others, not readable by this user, or encrypted under a key that is not given
"""

BACKUP_EXAMPLES: Final = """
examples:
  tokmesh backup create
  tokmesh backup list
  tokmesh backup fetch snapshot-00000000000000012345 /backup/tokmesh.tms
  tokmesh backup verify /backup/tokmesh.tms && echo good
  tokmesh backup restore /backup/tokmesh.tms
  tokmesh backup restore --to-time=2026-01-31T12:00:00Z      (of a stopped server)

A restore replaces everything: sessions, and API keys. A running server refuses writes while it restores, and goes on answering
reads from what it had. docs/backup.md tells more. Exit codes: 0, 1 the restore failed, 65 a file is no whole backup.
"""

DOCTOR_EXAMPLES: Final = """
examples:
  tokmesh doctor && echo well
  tokmesh doctor --explain TokMeshDiskSpaceLow

Exit codes: 0 nothing is wrong, 1 something is, 69 no server answers (its configuration is judged then).
"""

TOP_EXAMPLES: Final = """
examples:
  tokmesh top
  tokmesh top --once

It needs rich: pip install 'tokmesh[top]', or in a clone make extra EXTRA=top. Ctrl-C ends it.
"""

STORAGE_EXAMPLES: Final = """
examples:
  tokmesh storage rekey --config=/etc/tokmesh/tokmesh.yaml
  tokmesh storage rekey --storage.dir=/var/lib/tokmesh --storage.encryption.enabled=true \\
      --storage.encryption.key_file=/etc/tokmesh/storage.keys

The server must be stopped. Give the settings it will be started with: storage.encryption.enabled says whether the log is
encrypted afterwards, the first key is the one it is then under, and all keys that it is under now must be there too.
"""

CLUSTER_EXAMPLES: Final = """
examples:
  tokmesh cluster status && echo well
  tokmesh cluster nodes
  tokmesh cluster remove tmnd-3      (a node that will not come back)
  tokmesh cluster rebalance          (members that are away are not waited for: others load their shards)
  tokmesh cluster leave              (the server of this host leaves, and stops)
  tokmesh cluster reseed --config=/etc/tokmesh/tokmesh.yaml       (with the server stopped, after the stream was lost)
  tokmesh cluster init --print-nats-conf --name=tokmesh --hosts=nats-1,nats-2,nats-3 >nats-server.conf
  tokmesh cluster init --print-nats-conf --no-keys     (public keys from the servers' environment instead)

init prints one configuration for all NATS servers to standard output, and the secrets that belong to it, once, to standard error.
deploy/nats/README.md tells how to make certificates, and how to run, size and upgrade the servers.

exit codes: 0; `status` 1 when it is DEGRADED; 65 no such node, or no cluster, or nothing to rebalance, as each node
holds everything; 69 no server answers, or there is no quorum.
"""
