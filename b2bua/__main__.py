"""`python -m b2bua` is the command `b2bua`."""

from b2bua.cli.main import main

raise SystemExit(main())
