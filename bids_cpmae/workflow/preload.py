"""What every worker needs and is slow to import; none of it starts a thread by that."""

from contextlib import suppress

# without memory for it the run ends with a message of its own
with suppress(MemoryError):
    import ants  # noqa: F401
    import torch  # noqa: F401

    import bids_cpmae.workflow.interfaces  # noqa: F401
