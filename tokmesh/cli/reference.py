"""The page docs/configuration.md, written from the table of keys. A test compares the two."""

from typing import Final

from tokmesh.config.keys import KEYS

_HEAD: Final = """\
# Configuration

*Written by `tokmesh config reference`; edit the table in `tokmesh/config/keys.py` instead.*

TokMesh starts without any configuration. Every key below can be given in four places; the first that has it wins:

1. the command line: `tokmesh serve --server.http.address=0.0.0.0:5080`
2. the environment: `TOKMESH_SERVER_HTTP_ADDRESS=0.0.0.0:5080`, the key in capitals, `.` as `_`, after `TOKMESH_`
3. a YAML file, named by `--config FILE` or by `TOKMESH_CONFIG`, keys nested:

   ```yaml
   server:
     http:
       address: 0.0.0.0:5080
   session:
     ttl: {default: 8h, max: 720h}
   ```

4. the default

`tokmesh config check` says whether a configuration is good, and `tokmesh config show` prints the value of every key
with the place it came from; both take the same options as `tokmesh serve`.

**Units.** Durations carry one: `100ms`, `30s`, `5m`, `2h`, `7d`. Sizes are binary, 1 KB = 1024 bytes, 1 MB = 1024 KB; a
bare number is bytes. Rates are bytes a second (`1KB/s`) or decimal bits a second (`20Mbps` = 2,500,000 bytes a second).
Lists are YAML lists, or text with commas. Relative paths in a YAML file are relative to the file; elsewhere to the
current directory.

**Errors.** A bad value, an unknown key, an unknown `TOKMESH_…` variable or a missing file stops the start with exit
code 78, after every error has been listed, each with its code, key, place and rule:

| code | meaning |
|---|---|
| `TM-CFG-1001` | the value has the wrong type, or there is no such key |
| `TM-CFG-1002` | the value is outside its range |
| `TM-CFG-1003` | a file is missing |
| `TM-CFG-1004` | a file or directory has unacceptable permissions |
| `TM-CFG-1005` | two values contradict each other |
| `TM-CFG-1006` | the value needs something that is not there |
| `TM-CFG-1007` | a certificate or private key cannot be used |

`TOKMESH_KEY` (the API key in the examples), `TOKMESH_BUILD` and the variables Kubernetes injects for a Service called
`tokmesh` (`TOKMESH_SERVICE_HOST`, `TOKMESH_PORT_…`) are not settings and are left alone.

**Reload.** `SIGHUP` reads the same sources again. Changes of keys marked *applied* take effect; changes of other keys
are logged as needing a restart. A configuration with an error changes nothing, and the errors are logged.
"""


def reference_markdown() -> str:
    """docs/configuration.md: every key of the table, with its rule."""
    lines = [_HEAD]
    for section in dict.fromkeys(key.name.partition(".")[0] for key in KEYS):
        lines += [f"## {section}", "", "| key | default | meaning | must be | on SIGHUP |", "|---|---|---|---|---|"]
        for key in KEYS:
            if key.name.startswith(f"{section}."):
                row = key.row
                meaning = row.meaning + (
                    f" *(needs {row.needs}: not in this version, accepted at its default only)*" if row.needs else ""
                )
                default = f"`{row.default}`" if row.default else ""
                applied = "applied" if row.reloadable else "needs a restart"
                lines.append(f"| `{key.name}` | {default} | {meaning} | {row.kind.rule} | {applied} |")
        lines.append("")
    return "\n".join(lines)
