"""A process that writes a log anew, for tests that kill it.

    python -m tests.crash.rekeys DIRECTORY FORM

Afterwards the log is in that form (`tests.crash.records.FORMS`).
"""

import sys
from pathlib import Path

from tests.crash.records import FORMS
from tokmesh.storage.rekey import rekey


def main() -> None:
    directory, form = sys.argv[1:]
    rekey(Path(directory), FORMS[form])


if __name__ == "__main__":
    main()
