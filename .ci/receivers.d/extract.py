"""Prints the sample of a language in docs/receiving.md: the first block that is fenced with its name."""

import re
import sys

page = open("docs/receiving.md", encoding="utf-8").read()
block = re.search(rf"^```{re.escape(sys.argv[1])}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
if block is None:
    sys.exit(f"docs/receiving.md has no sample in {sys.argv[1]}")
print(block.group(1), end="")
