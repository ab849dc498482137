"""image_config.py FILE: the settings of an image, as `buildah inspect` printed them, are the promised ones."""

import json
import sys
from pathlib import Path
from typing import Any


def faults(config: dict[str, Any]) -> list[str]:
    """What differs from: not root, port 5080, a volume for data, a health check, all interfaces, `tokmesh serve`."""
    environment = dict(pair.split("=", 1) for pair in config.get("Env") or [])
    promises = {
        "User": (config.get("User"), "5080"),
        "ExposedPorts": (list(config.get("ExposedPorts") or {}), ["5080/tcp"]),
        "Volumes": (list(config.get("Volumes") or {}), ["/var/lib/tokmesh"]),
        "Entrypoint": (config.get("Entrypoint"), ["tokmesh"]),
        "Cmd": (config.get("Cmd"), ["serve"]),
        "address": (environment.get("TOKMESH_SERVER_HTTP_ADDRESS"), "0.0.0.0:5080"),
        "storage": (environment.get("TOKMESH_STORAGE_DIR"), "/var/lib/tokmesh"),
        "Healthcheck": (bool((config.get("Healthcheck") or {}).get("Test")), True),
    }
    return [f"{name}: {got!r}, promised {wanted!r}" for name, (got, wanted) in promises.items() if got != wanted]


if __name__ == "__main__":
    found = faults(json.loads(Path(sys.argv[1]).read_text())["Docker"]["config"])
    print("\n".join(found) if found else "image settings: as promised")
    sys.exit(1 if found else 0)
