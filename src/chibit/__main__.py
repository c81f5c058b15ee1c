"""``python -m chibit`` is the command line."""

from chibit.cli import main

raise SystemExit(main())
