"""The daemon starts without what its first answer does not need."""

import subprocess
import sys

READ = """
import gemmad.app, ssl
from aiohttp import connector
for context in (connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED):
    print(context.cert_store_stats()["x509"])
print(ssl.SSLContext.load_default_certs.__qualname__)
print(ssl.SSLContext.set_default_verify_paths.__qualname__)
"""


def test_the_daemon_reads_no_certificates_when_it_is_imported() -> None:
    """aiohttp's client would, and the daemon has no use for it; who needs them still gets them."""
    said = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)

    assert said.stdout.split() == [
        "0",
        "0",
        "SSLContext.load_default_certs",
        "_SSLContext.set_default_verify_paths",
    ]
