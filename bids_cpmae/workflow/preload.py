"""What every worker needs and is slow to import; none of it starts a thread by that."""

import ctypes
import gc
import signal
from contextlib import suppress

PR_SET_PDEATHSIG = 1

# the process that imports this for all workers looks for the end of the run only when it is done, which is never where
# a library, short of memory, tries for ever: Linux ends it with the run
with suppress(Exception):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

# only to be quick: whoever needs what could not be imported tries again and says why, while here every error, of
# whatever kind (short of memory, an import fails in many ways), would be printed past the run's own messages
with suppress(Exception):
    import torch  # noqa: F401

    import bids_cpmae.report.participant  # noqa: F401
    import bids_cpmae.workflow.interfaces  # noqa: F401
    from bids_cpmae.antspy import load_ants

    load_ants()

# nothing of it is garbage to look for, neither during the work nor when a worker ends
gc.freeze()
