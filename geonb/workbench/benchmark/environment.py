"""Versions and machine, as a row of results and the papers of a trained model keep them."""

from __future__ import annotations

import os
import platform


def environment() -> dict[str, str]:
    """Versions and machine of a row."""
    import peft
    import torch
    import transformers

    from geonb._version import __version__

    return {
        "geonb": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "",
    }
