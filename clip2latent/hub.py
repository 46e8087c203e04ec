"""Puts an exported prior on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from clip2latent.checkpoint import load_prior
from clip2latent.downloads import is_offline
from clip2latent.export import CARD, FILES

TOKEN = "log in by `hf auth login`, or set HF_TOKEN to a token that may write (https://huggingface.co/settings/tokens)"


class UploadError(OSError):
    """An upload failed or was refused."""


def push(
    folder: str | Path, repo: str, private: bool = False, revision: str | None = None, endpoint: str | None = None
) -> str:
    """Uploads an exported prior as one commit, and returns the commit's address.

    Args:
        folder: that `export` wrote; its own files are uploaded and no others.
        repo: owner/name, made where there is none.
        private: whether a new repository is visible to its owner alone; one that exists stays as it is.
        revision: the branch; None for main.
        endpoint: of another Hub than huggingface.co.

    Raises:
        ValueError: the folder is no export that can be loaded, the name is malformed, the network is not allowed, or
            there is no token.
        UploadError: the Hub refused or could not be reached.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo):
        raise ValueError(f"repo: expected owner/name, got {repo!r}")
    folder = Path(folder)
    if not (folder / CARD).is_file():
        raise ValueError(f"folder: {folder} holds no {CARD}: write it by `python sample.py export CHECKPOINT {folder}`")
    load_prior(folder)
    if is_offline():
        raise ValueError("push needs the network, which --offline, CLIP2LATENT_OFFLINE or HF_HUB_OFFLINE forbids")
    from huggingface_hub import HfApi, errors, get_token

    token = get_token()
    if not token:
        raise ValueError(f"there is no token of the Hugging Face Hub: {TOKEN}")
    api = HfApi(endpoint=endpoint, token=token)
    # What the Hub's errors are built on is also what a connection's errors are, in every version of huggingface_hub.
    failures = (errors.HfHubHTTPError.__mro__[1], OSError)
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        files = [name for name in FILES if (folder / name).is_file()]
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=files,
            revision=revision,
            commit_message="Prior exported by clip2latent",
        )
    except failures as error:
        raise UploadError(f"{repo}: {_reason(error)}; nothing was changed there") from None
    return str(done.commit_url)


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the Hub does not accept the token: {TOKEN}"
    if status == 403:
        return "the token has no right to write there: is the owner's name right, and the token's role 'write'?"
    if status is not None:
        said = str(getattr(error, "server_message", None) or error).splitlines()
        return f"the Hub answers {status}" + (f": {said[0]}" if said and said[0] else "")
    return f"the Hub could not be reached ({type(error).__name__}: {error})"
