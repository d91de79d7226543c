"""What can go wrong, as sentences.

    MechtestsError
    ├── UsageError         what was asked for cannot be done: a name, an option, a claim
    ├── LoadError          a model, a tokenizer or a file cannot be loaded
    │   └── SelfCheckError     it loaded, but the adapter does not reproduce it
    ├── MeasurementError   a measurement failed: NaN, out of memory, missing in a replay
    ├── NotApplicable      the model cannot be asked: its tokenizer splits the names, ...
    └── Undecidable        what is recorded of the model is too little to decide the claim

Every message says where, what was needed, what was found, and what to do.
"""


class MechtestsError(Exception):
    """The root of every error mechtests raises on purpose."""


class UsageError(MechtestsError):
    """What the user asked for cannot be done; pytest exits with code 4."""


class LoadError(MechtestsError):
    """A model, a tokenizer or a file could not be loaded."""


class SelfCheckError(LoadError):
    """The adapter does not reproduce the plain model, so nothing is measured."""


class MeasurementError(MechtestsError):
    """A measurement could not be made, or a replay does not find it."""


class NotApplicable(MechtestsError):  # noqa: N818  (it is a verdict, not a fault)
    """A requirement of the task is unmet by this model; the reason is the message."""


class Undecidable(MechtestsError):  # noqa: N818  (it is a verdict, not a fault)
    """The values at hand are means only, and the claim needs more; the reason is the message."""
