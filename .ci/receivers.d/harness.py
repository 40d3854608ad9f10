"""Asks the sample about one request, as `vectors.py` describes it."""

import os
import sys

from sample import verify

headers = dict(line.rstrip("\r\n").split(": ", 1) for line in open(sys.argv[1], encoding="latin-1", newline="\n"))
body = open(sys.argv[2], "rb").read()
now = [int(sys.argv[3])] if len(sys.argv) > 3 else []
sys.exit(0 if verify(os.environ["SECRET"], headers, body, *now) else 10)
