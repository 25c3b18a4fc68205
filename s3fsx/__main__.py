"""``python -m s3fsx``"""

import sys

from .cli import main

sys.exit(main())
