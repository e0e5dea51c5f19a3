"""`python -m hwprune`, and `torchrun -m hwprune`, are the command `hwprune`."""

import sys

from hwprune.cli.main import main

sys.exit(main())
