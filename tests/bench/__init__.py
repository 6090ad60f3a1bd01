"""The measurements behind docs/performance.md: `make bench`, or `python -m tests.bench --help`.

Load comes from this process (an independent SIP endpoint and a media generator in C); what is measured is
`b2bua serve` in a process of its own, through /proc.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/, where `support` lies
