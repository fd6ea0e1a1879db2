"""What every worker needs and is slow to import; none of it starts a thread by that."""

from contextlib import suppress

# only to be quick: whoever needs what could not be imported tries again and says why, while here every error, of
# whatever kind (short of memory, an import fails in many ways), would be printed past the run's own messages
with suppress(Exception):
    import ants  # noqa: F401
    import torch  # noqa: F401

    import bids_cpmae.workflow.interfaces  # noqa: F401
