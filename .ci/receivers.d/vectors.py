"""Holds a verifier against the known answers: it must take those, and refuse what must be refused.

The verifier is a command: it gets a file with the headers, one with the body, and the time. It exits with 0 for true and
with 10 for false; anything else is a crash.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

command = sys.argv[1:]
vectors = json.loads(pathlib.Path("tests/signing-vectors.json").read_text(encoding="utf-8"))
cases = [
    (known["secret"], {"KALLIMA-signature": known["kallima_signature"]}, known["body"], known["timestamp"], 0)
    for known in vectors["known_answers"]
] + [
    (refused["secret"], refused["headers"], refused["body"], refused["now"], 10) for refused in vectors["refusals"]
]
with tempfile.TemporaryDirectory() as folder:
    headers_file, body_file = pathlib.Path(folder, "headers"), pathlib.Path(folder, "body")
    for secret, headers, body, now, expected in cases:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        headers_file.write_bytes(lines.encode())
        body_file.write_bytes(body.encode())
        run = subprocess.run(
            [*command, headers_file, body_file, str(now)], env={**os.environ, "SECRET": secret}, check=False
        )
        if run.returncode != expected:
            sys.exit(f"exit code {run.returncode} instead of {expected} for {headers} at {now}: {body}")
print(f"{len(cases)} known answers hold")
