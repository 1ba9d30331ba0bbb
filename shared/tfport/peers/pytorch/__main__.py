"""`python -m tfport.peers.pytorch --model=...`: tfport train with the paradigm set."""

from __future__ import annotations

import sys

from tfport.cli import run

if __name__ == "__main__":
    run("train", sys.argv[1:], paradigm="torch")
