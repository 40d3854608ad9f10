"""A receiver that asks a verifier about each request: 200 if it says true, 400 if false, 500 if it crashes.

It prints its URL. The verifier is a command as `vectors.py` describes it.
"""

import pathlib
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer

COMMAND = sys.argv[1:]
STATUSES = {0: 200, 10: 400}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with tempfile.TemporaryDirectory() as folder:
            headers_file, body_file = pathlib.Path(folder, "headers"), pathlib.Path(folder, "body")
            lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            headers_file.write_bytes(lines.encode("latin-1"))
            body_file.write_bytes(body)
            run = subprocess.run([*COMMAND, headers_file, body_file], check=False)
        self.send_response(STATUSES.get(run.returncode, 500))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
