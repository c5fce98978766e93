#!/bin/sh
# Answers like cargo in the tests: the answer is the script beside the manifest that is asked about.
test "$1 $2 $3 $4 $5" = "metadata --format-version 1 --locked --manifest-path" || exit 9
. "$(dirname "$6")/answer.sh"
