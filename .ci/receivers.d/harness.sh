# Asks the sample about one request, as `vectors.py` describes it.
set -u
. "$(dirname "$0")/sample.sh"
if verify "$SECRET" "$@"; then exit 0; else exit 10; fi
