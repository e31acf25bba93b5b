"""`python -m mesh_llm` is the `mesh-llm` command."""

import sys

from mesh_llm.cli.main import main

sys.exit(main())
