"""Fixtures for all tests; what makes them lives in `heads` and `phantoms`."""

from heads import head_image, real_data  # noqa: F401
from phantoms import phantom, plain_phantom  # noqa: F401
