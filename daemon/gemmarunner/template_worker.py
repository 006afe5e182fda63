"""The process that renders chat templates for a runner, because only a process can be bounded.

One JSON line in, one JSON line out for each of its prompts, as soon as it is written:

    {"template": "...", "prompts": [{variables...}, ...]}  ->  {"text": "..."} or {"error": "..."}

Without a template, the last one given is meant: a model has one, many times as long as a prompt.
Its memory is limited here, its time by the runner, which kills it.
"""

import json
import sys
from typing import Any

from jinja2 import TemplateError

from gemmarunner.harden import die_with_parent, dump_no_core, gain_no_privileges
from gemmarunner.template import render

MEMORY_BYTES = 256 * 1024 * 1024  # beyond what the interpreter takes


def main() -> None:
    """Answers until the runner closes the pipe."""
    _give_up_rights()
    template = ""
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        template = request.get("template", template)
        for variables in request["prompts"]:
            found = answer(template, variables)
            sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
            sys.stdout.buffer.flush()


def answer(template: str, variables: dict[str, Any]) -> dict[str, str]:
    """The rendered text, or what is wrong with the template."""
    try:
        return {"text": render(template, variables)}
    except MemoryError:
        return {"error": "it needs more memory than a prompt can"}
    except (TemplateError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        return {"error": str(error) or type(error).__name__}
    except RecursionError:
        return {"error": "it calls itself too deeply"}


def _give_up_rights() -> None:
    dump_no_core()
    if sys.platform == "linux":
        import resource

        die_with_parent()
        gain_no_privileges()
        with open("/proc/self/statm") as statm:  # noqa: PTH123  (a kernel file, not a path)
            pages = int(statm.read().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
