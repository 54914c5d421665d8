"""What the heads of all our cards have in common: the licence and the configurations, as the hub reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=str)
FILES = "{config}/{split}-*.parquet"


def licence_of(name: str | None) -> dict[str, object]:
    """As the hub knows it; one that it does not know by its own name."""
    if not name:
        return {}
    known = name.lower()
    if _LICENCES.fullmatch(known):
        return {"license": known}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", known).strip("-") or "other"}


# Of the hub's list those that data and texts come under.
_LICENCES = re.compile(
    r"apache-2\.0|mit|cc0-1\.0|cc-by(?:-sa|-nc|-nc-sa|-nc-nd)?-[34]\.0|cc-by-nd-4\.0|odc-by|odbl|pddl|c-uda"
    r"|cdla-(?:permissive-[12]|sharing-1)\.0|bsd-[23]-clause|[al]?gpl-3\.0|mpl-2\.0|unlicense|openrail|other|unknown"
)


def configs(
    content: Mapping[Name, str], splits: Mapping[Name, Iterable[str]], files: str = FILES
) -> list[dict[str, object]]:
    """The `configs` of a card, in the order of `splits`; `content` names what is in each, `files` where it lies."""
    return [
        {
            "config_name": config,
            # datasets 5 caches a folder by its last name and these settings: without it, one dataset's rows are taken
            # for another's.
            "description": f"content {content[config]}",
            "data_files": [
                {"split": split, "path": files.format(config=config, split=split)}
                for split in sorted(of_config, key=lambda split: not split.startswith("train"))  # it comes first
            ],
        }
        for config, of_config in splits.items()
    ]
