"""Models on the Hugging Face hub: ``hf:org/name@revision``, downloaded into the hub library's own cache.

Tokens, mirrors and the offline mode (``HF_HUB_OFFLINE=1``) are the library's. Only weights in safetensors, configs and
tokenizers are fetched: no pickles, no code.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from evomerge import plugins
from evomerge.errors import PoolError
from evomerge.merge.companions import COMPANIONS
from evomerge.merge.tokens import FILES

PREFIX = "hf:"

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json")
_LEFT = ("*/*", "consolidated*.safetensors", "*.fp16.safetensors")
"""Second copies of the weights, in subfolders or under other names."""


def model(reference: str) -> Path:
    """The local folder of a model or adapter.

    Raises:
        PoolError: it cannot be had; says why and what to do.
    """
    folder = _snapshot(reference, (*_WEIGHTS, *COMPANIONS))
    if not any(folder.glob("*.safetensors")):
        raise PoolError(
            f"{reference} has no safetensors files; name a revision that has (the hub's converter offers one as a pull "
            "request: @refs/pr/NUMBER), or load it with transformers and save it into a folder"
        )
    return folder


def tokenizer(reference: str) -> Path:
    """The local folder of a tokenizer.

    Raises:
        PoolError: it cannot be had; says why and what to do.
    """
    return _snapshot(reference, FILES)


def pinned(reference: str, folder: Path) -> str:
    """The reference with the commit that it stood for, so that it always means the same."""
    return f"{reference.partition('@')[0]}@{folder.name}"


def _snapshot(reference: str, patterns: Sequence[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise PoolError(f"{reference} is on the Hugging Face hub, but {plugins.extra_for(error)}") from error
    name, _, revision = reference.removeprefix(PREFIX).partition("@")
    try:
        found = snapshot_download(
            name, revision=revision or None, allow_patterns=list(patterns), ignore_patterns=list(_LEFT)
        )
    except errors.GatedRepoError as error:
        raise PoolError(
            f"{reference} is gated: accept its terms at https://huggingface.co/{name} and log in "
            "(hf auth login), or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise PoolError(f"{reference}: {name} has no revision {revision!r}; give a branch, tag or commit") from error
    except errors.RepositoryNotFoundError as error:
        raise PoolError(
            f"{reference}: there is no model {name} on the hub, or it is private; correct the name, or log "
            "in (hf auth login)"
        ) from error
    except errors.HFValidationError as error:
        raise PoolError(
            f"{reference} is no name of a model on the hub; write hf:org/name or hf:org/name@revision"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise PoolError(
            f"{reference} is not in the local cache, and the hub cannot be reached; download it once while "
            "online (HF_HUB_OFFLINE unset), or give a local folder"
        ) from error
    except _transport_errors() as error:
        raise PoolError(f"cannot download {reference}: {error}; try again, or give a local folder") from error
    return Path(found)


def _transport_errors() -> tuple[type[Exception], ...]:
    """What the hub library's HTTP client raises when there is no connection; older ones raise `OSError`."""
    clients = (sys.modules.get(name) for name in ("httpx2", "httpx"))
    return OSError, *(client.HTTPError for client in clients if client is not None)
