"""What all of these tests share."""

from hypothesis import settings

# `make test` says yes or no about a commit, so it draws the same examples each time; a bare
# `pytest tests` draws new ones.
settings.register_profile("unhurried", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("unhurried")
