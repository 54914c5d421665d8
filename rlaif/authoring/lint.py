"""What is wrong with a constitution before it is paid for: doubles, vague words, what only forbids, what is missing.

No model is asked. Rules on words know English and Chinese; in other languages only the others are applied,
and a note says so. Over-training on harmlessness alone gives preachy refusals (Bai et al. 2022, section 4),
hence the rules on balance.
"""

from __future__ import annotations

from typing import get_args

from rlaif.authoring.balance import balance, draws, forbidding, ids
from rlaif.authoring.doubles import doubles
from rlaif.authoring.finding import Finding, Level
from rlaif.authoring.wording import foreign, marks, wording
from rlaif.authoring.words import words_of
from rlaif.constitution import Constitution


def findings(constitution: Constitution) -> list[Finding]:
    """Errors first; within a level in the order of the rules."""
    words = words_of(constitution.language)
    strange = list(foreign(constitution))
    skipped = {name for finding in strange for name in finding.principles}
    found = [*strange, *doubles(constitution, words), *marks(constitution)]
    if words is None:
        found.append(
            Finding(
                "note",
                "unknown-language",
                (),
                f"rules on words know English and Chinese, not '{constitution.language}': they are left out",
                "read the principles for vague words, and for what only forbids, yourself",
            )
        )
    else:
        readable = [p for p in constitution.principles if p.id not in skipped]
        found += [*wording(readable, words), *forbidding(readable, words)]
    found += [*balance(constitution, words), *draws(constitution), *ids(constitution)]
    return sorted(found, key=lambda finding: get_args(Level).index(finding.level))
