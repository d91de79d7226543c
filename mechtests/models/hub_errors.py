"""What the hub library raises, as sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mechtests.errors import LoadError


class UnreachableError(LoadError):
    """The hub did not answer."""


@contextlib.contextmanager
def sentences(repo: str) -> Iterator[None]:
    """Turn an error of the hub library about ``repo`` into one sentence.

    Raises:
        UnreachableError: There is no network, or no answer.
        LoadError: The repository is gated, private or missing, or the cache is not writable.
    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise _answered(repo, error) from None
    except Exception as error:
        sentence = _unanswered(repo, error)
        if sentence is None:
            raise
        raise sentence from None


def _answered(repo: str, error: BaseException) -> LoadError:
    """The hub said no."""
    from huggingface_hub import constants, errors

    status = getattr(getattr(error, "response", None), "status_code", 0)
    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return LoadError(
            f"{repo} is gated (HTTP {status}): ask for access on its page {page}, then set "
            f"HF_TOKEN to a token of that account"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return LoadError(
            f"there is no model {repo} on {constants.ENDPOINT} that you may see (HTTP {status}): "
            f"check its name; if it is private, set HF_TOKEN to a token that may read it"
        )
    if status in (401, 403):
        return LoadError(
            f"{repo} refuses access (HTTP {status}): see its page {page}, and set HF_TOKEN to a "
            f"token that may read it"
        )
    if status == 404:
        return LoadError(f"{repo} lacks a file or revision that it lists (HTTP 404): see {page}")
    return UnreachableError(f"the hub answered HTTP {status} for {repo}; try again later")


def _unanswered(repo: str, error: Exception) -> LoadError | None:
    """The hub could not be asked, or its answer not be kept; None for any other error."""
    from huggingface_hub import constants, errors

    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError) and cause is not None:
        answered = isinstance(cause, errors.HfHubHTTPError)
        return _answered(repo, cause) if answered else _unreachable(repo, cause)
    network = ("httpx", "httpcore", "requests", "urllib3")
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(
        network
    ):
        return _unreachable(repo, error)
    if isinstance(error, OSError):
        return LoadError(
            f"{repo} cannot be written to the cache {constants.HF_HUB_CACHE} "
            f"({error.strerror or error}); make room there, or set HF_HOME to another folder"
        )
    return None


def _unreachable(repo: str, error: BaseException) -> UnreachableError:
    from huggingface_hub import constants

    return UnreachableError(
        f"{constants.ENDPOINT} cannot be reached for {repo} ({type(error).__name__}) and it is "
        f"not wholly in the cache; check the network, or run once where there is one"
    )
