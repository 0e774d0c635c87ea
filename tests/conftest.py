"""What every test shares: hypothesis profiles, a cache of its own, one thread per library."""

import os

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "ci", derandomize=True, max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Spectra and digests are cached in a folder of the test run, never in the user's."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("GEONB_CACHE")
    os.environ["GEONB_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["GEONB_CACHE"]
    else:
        os.environ["GEONB_CACHE"] = before
