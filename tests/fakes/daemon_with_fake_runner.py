"""The real daemon with fake runners: a composition root for tests, run as a program.

`python -m tests.fakes.daemon_with_fake_runner BUILTIN_DIRECTORY RUNNER_OPTIONS_JSON [FLAGS...]`
"""

import json
import sys
from pathlib import Path

from gemmad.app import Parts, main
from tests.fakes.fake_runner import fake_command

if __name__ == "__main__":
    builtin, options, *flags = sys.argv[1:]
    parts = Parts(runner=fake_command(**json.loads(options)), builtin=Path(builtin))
    sys.exit(main(flags, parts))
