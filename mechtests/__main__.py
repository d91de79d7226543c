"""``python -m mechtests`` is the ``mechtests`` command."""

from mechtests.cli import app

app()
