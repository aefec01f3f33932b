"""`python -m sae_oracle`: the same as the command `sae-oracle`."""

import sys

from sae_oracle.cli import main

sys.exit(main())
