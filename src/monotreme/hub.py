"""The Hugging Face Hub: which commit a name means, and a model's files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from monotreme.errors import InputError, RemoteError

MODEL_FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
MODEL_FILES += ["LICENSE*", "NOTICE*", "USE_POLICY*"]


@contextmanager
def hub_errors(
    what: str, offline: str = "Connect to the Hub, or give the recipe a local `path`"
) -> Iterator[None]:
    """Turn a failed Hub call into one line that names what was asked for.

    Args:
        offline: what to do when the Hub cannot be reached.

    Raises:
        InputError: `what` cannot be a Hub name at all.
        RemoteError: the Hub does not have it, does not give it, or cannot be reached.
    """
    from huggingface_hub import errors as hub

    refusals = {  # most special first: some of these are subclasses of others
        hub.GatedRepoError: ("is gated on the Hub", "Accept its terms there, then `hf auth login`"),
        hub.RevisionNotFoundError: ("has no such revision", "Correct `revision` in the recipe"),
        hub.RepositoryNotFoundError: (
            "is not on the Hub, or is private",
            "Correct the name, or `hf auth login`",
        ),
        hub.RemoteEntryNotFoundError: (
            "lacks a file that is needed",
            "Correct the name in the recipe",
        ),
        hub.HfHubHTTPError: (
            "was refused by the Hub",
            "Try again later, or give the recipe a local `path`",
        ),
    }
    try:
        yield
    except hub.HFValidationError:
        problem = f"{what} is neither a local path nor a Hub name"
        raise InputError(problem, "Correct it in the recipe") from None
    except tuple(refusals) as error:
        says, remedy = next(text for kind, text in refusals.items() if isinstance(error, kind))
        raise RemoteError(f"{what} {says} ({_line(error)})", remedy) from None
    except Exception as error:
        if not _is_connection(error):
            raise
        raise RemoteError(f"{what}: the Hub cannot be reached ({_line(error)})", offline) from None


def _is_connection(error: Exception) -> bool:
    """Offline mode, a refused or broken connection, or nothing in the cache while offline."""
    transport = type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
    kinds = (ConnectionError, TimeoutError)
    return (
        transport or isinstance(error, kinds) or type(error).__name__ == "LocalEntryNotFoundError"
    )


def resolve(kind: Literal["dataset", "model"], name: str, revision: str | None) -> str:
    """The commit hash that a name (and a branch or tag) means now.

    Raises:
        RemoteError: no such repository or revision, no access, or no connection.
    """
    from huggingface_hub import HfApi

    with hub_errors(f"{kind} {name}"):
        info = HfApi().repo_info(name, repo_type=kind, revision=revision)
    return str(info.sha)


def download_model(
    name: str, revision: str, trust_remote_code: bool = False, weights: bool = True
) -> Path:
    """A model's safetensors, configuration, tokenizer and licence, downloaded once into the cache.

    Args:
        trust_remote_code: fetch the model's own code too.
        weights: false leaves the safetensors where they are.
    """
    from huggingface_hub import snapshot_download

    wanted = [*MODEL_FILES, "*.py"] if trust_remote_code else list(MODEL_FILES)
    wanted = [name for name in wanted if weights or not name.endswith(".safetensors")]
    with hub_errors(f"model {name}"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
