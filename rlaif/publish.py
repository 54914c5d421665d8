"""A run's dataset on the Hugging Face hub: what the export wrote as one commit, private unless told otherwise."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rlaif.errors import ConfigError, RlaifError
from rlaif.export.card import MARKER
from rlaif.store import RunFolder, RunLock

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import DatasetInfo


class PushFailed(RlaifError):
    """The hub could not be reached, or did not take the dataset; nothing was committed there."""


class File(NamedTuple):
    path: str  # in the repository
    size: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """`url` is the commit's, or the pull request's; `removed` were there from an earlier push."""

    repo: str
    url: str
    private: bool
    changed: bool  # False: the hub had all of it already
    removed: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def files_of(folder: RunFolder) -> list[File]:
    """What a push would send. Raises ConfigError where an export has to come first."""
    card = folder.dataset / "README.md"
    if not card.is_file() or MARKER not in card.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(f"run '{folder.name}' has no dataset yet; make it with: rlaif export {folder.name}")
    sources = [*folder.parts.glob("part-*"), folder.audit / "audit.md"]
    made = card.stat().st_mtime_ns
    if any(path.stat().st_mtime_ns > made for path in sources if path.exists()):
        way_out = f"make it anew with: rlaif export {folder.name}"
        raise ConfigError(f"the dataset of run '{folder.name}' is older than its records or their audit; {way_out}")
    return [File(path, (folder.dataset / path).stat().st_size) for path in _paths(folder) if _OURS.fullmatch(path)]


def not_sent(folder: RunFolder) -> list[str]:
    """What lies in the dataset's folder and was not written by rlaif: checkpoints, notes, keys."""
    return [path for path in _paths(folder) if not _OURS.fullmatch(path)]


def _paths(folder: RunFolder) -> list[str]:
    return sorted(path.relative_to(folder.dataset).as_posix() for path in folder.dataset.rglob("*") if path.is_file())


def checked_repo(repo: str) -> str:
    """Raises ConfigError for what the hub would not take as OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if repo.count("/") != 1:
        raise ConfigError(
            f"'{repo}' is no dataset of the hub; write OWNER/NAME, where OWNER is you or your organization"
        )
    try:
        validate_repo_id(repo)
    except HFValidationError:
        way_out = "letters, digits, '-', '_' and '.' only, neither first nor last, not '--' or '..', at most 96 in all"
        raise ConfigError(f"'{repo}' cannot be a dataset's name on the hub; {way_out}") from None
    return repo


def checked_target(repo: str, branch: str | None, pull_request: bool) -> None:
    """Raises ConfigError for a name that the hub would not take, and for two places at once."""
    checked_repo(repo)
    if branch is not None and not re.fullmatch(r"(?!.*\.\.)\w[\w./-]*", branch):
        raise ConfigError(f"--branch '{branch}' cannot be a branch's name; use letters, digits, '-', '_', '.' and '/'")
    if branch and pull_request:
        raise ConfigError("--branch and --pr: a pull request is made to the main branch; leave out one of the two")


def push(
    folder: RunFolder,
    repo: str,
    *,
    public: bool = False,
    message: str | None = None,
    branch: str | None = None,
    pull_request: bool = False,
) -> Pushed:
    """Make the hub's dataset `repo` what the run's export wrote, in one commit; it is made if it is not there.

    The token is HF_TOKEN's, or that of `hf auth login`. What an earlier push left and this one does not have goes with
    the same commit; files that rlaif does not write stay. A repository that is not ours, or is open where `public` was
    not said, is refused before anything is sent.

    Raises ConfigError, PushFailed; StoreError while the run is being written.
    """
    import huggingface_hub

    checked_target(repo, branch, pull_request)
    files = files_of(folder)
    with _said_clearly(repo):
        token = huggingface_hub.get_token()
    if token is None:
        raise ConfigError(
            "no token for the Hugging Face hub: make one that may write at https://huggingface.co/settings/tokens "
            "and set HF_TOKEN to it, or run: hf auth login"
        )
    api = huggingface_hub.HfApi(token=token, library_name="rlaif")
    # The hub's warnings about the card are handed on; that nothing changed, the library need not say.
    with RunLock(folder), _said_clearly(repo), _without_log_lines(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        there = _there(api, repo, public, branch)
        ours = {file.path for file in files}
        there_now = [sibling.rfilename for sibling in there.siblings or ()]
        removed = tuple(path for path in there_now if path not in ours and _OURS.fullmatch(path))
        # Not upload_folder: with Xet that makes several commits, and a reader could see half of two datasets.
        commit = api.create_commit(
            repo,
            [
                *(huggingface_hub.CommitOperationDelete(path) for path in removed),
                *(huggingface_hub.CommitOperationAdd(file.path, folder.dataset / file.path) for file in files),
            ],
            repo_type="dataset",
            commit_message=message or f"Dataset of run {folder.name}",
            revision=branch,
            create_pr=pull_request,
            parent_commit=there.sha,  # refused if somebody else was there in between
        )
    return Pushed(
        repo,
        str(commit.pr_url or commit.commit_url),
        private=bool(there.private),
        changed=commit.oid != there.sha,
        removed=removed,
        notices=tuple(
            dict.fromkeys(" ".join(str(one.message).split()) for one in warned if one.category is UserWarning)
        ),
    )


# What this or an earlier version writes into a dataset's folder.
_OURS = re.compile(
    r"README\.md|\w+/(?:train|test)-\d+-of-\d+\.parquet|trl-\w+\.yaml|(?:constitution|pipeline)\.yaml|summary\.json"
    r"|audit\.(?:json|md)|(?:accuracy|reliability|coverage|judges|people)\.png"
)


def _there(api: HfApi, repo: str, public: bool, branch: str | None) -> DatasetInfo:
    """The repository as it is, made if need be. Raises ConfigError for one that is not to be written to."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = api.dataset_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, repo_type="dataset", private=not public)
        info = api.dataset_info(repo)
    others = [sibling.rfilename for sibling in info.siblings or () if sibling.rfilename not in _OF_A_NEW_ONE]
    if others and "rlaif" not in (info.tags or ()):
        raise ConfigError(f"{repo} holds {others[0]} and was not written by rlaif; name another repository")
    if not info.private and not public:
        raise ConfigError(f"{repo} is open to everyone; say --public to publish there, or name another repository")
    if info.private and public:
        raise ConfigError(
            f"{repo} is there already, and private: open it in its settings if its history may be read, "
            "and push without --public"
        )
    if branch is None:
        return info
    try:
        return api.dataset_info(repo, revision=branch)
    except RevisionNotFoundError:
        api.create_branch(repo, repo_type="dataset", branch=branch)
        return api.dataset_info(repo, revision=branch)


_OF_A_NEW_ONE = (".gitattributes", "README.md", "LICENSE")


@contextmanager
def _without_log_lines() -> Iterator[None]:
    """But for those on a rest that the hub asks for, which another logger writes."""
    logger = logging.getLogger("huggingface_hub.hf_api")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _said_clearly(repo: str) -> Iterator[None]:
    """The library's errors as ours, with the way out; none of them holds the token."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # type: ignore[attr-defined]

    try:
        yield
    except RlaifError:
        raise
    except OfflineModeIsEnabled:
        raise ConfigError("HF_HUB_OFFLINE is set, which forbids to send anything; unset it to push") from None
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except HTTPError as error:
        where = f"{constants.ENDPOINT} cannot be reached ({_in_a_line(error)})"
        raise PushFailed(f"{where}; check the network, and HF_ENDPOINT if it is set, and push again") from error
    except OSError as error:
        raise PushFailed(f"{repo}: {_in_a_line(error)}") from error
    except ValueError as error:  # a card that the hub does not take
        raise PushFailed(f"{repo} was not pushed: {_in_a_line(error)}") from error
    except Exception as error:  # of the threads that upload, and of Xet
        if isinstance(error.__cause__, HfHubHTTPError):
            raise _refused(repo, error.__cause__) from error
        raise PushFailed(f"{repo} was not pushed: {_in_a_line(error)}; push again") from error


def _refused(repo: str, error: HfHubHTTPError) -> RlaifError:
    status = error.response.status_code
    why = f": {_in_a_line(error.server_message)}" if error.server_message else ""
    match status:
        case 401:
            return ConfigError(
                f"the hub does not accept this token (401{why}); make another at "
                "https://huggingface.co/settings/tokens, set HF_TOKEN to it or run: hf auth login"
            )
        case 403:
            return ConfigError(
                f"this token may not write to {repo} (403{why}); give it that right at "
                "https://huggingface.co/settings/tokens, or name a repository of yours"
            )
        case 404:
            return ConfigError(f"{repo}: not found on the hub (404{why}); check the name and whose token it is")
        case 409 | 412:
            return PushFailed(f"{repo} was changed by somebody else meanwhile ({status}{why}); push again")
        case 429:
            after = error.response.headers.get("retry-after")
            rest = f"in {after} s" if after else "in some minutes"
            return PushFailed(f"the hub asks for a rest (429{why}); push again {rest}")
    return PushFailed(
        f"{repo} was not pushed: the hub answered {status}{why}; push again, or look at status.huggingface.co"
    )


def _in_a_line(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
