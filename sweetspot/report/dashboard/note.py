"""Our part of a note that people may edit: written again as long as nobody has changed it, and nothing else is touched.

Its last line is a link definition, which Markdown does not show, with the length and a digest of what stands before it.
So it is found wherever it stands, and every version of it is known for ours: whoever saves a note that they had opened
before the last change brings an old version back, and it is replaced like any other.
"""

import hashlib
import re

_MARK = re.compile(r'\[sweetspot\]: # "([0-9a-f]{16}) (\d{1,7})"')


def marked(text: str) -> str:
    """Our part, with the line by which it is known."""
    body = f"{text}\n\n"
    return f'{body}[sweetspot]: # "{_digest(body)} {len(body)}"\n'


def merged(there: str, text: str, *, is_first: bool) -> str:
    """The note with ``text`` as our part, and all that others have written.

    Args:
        there: the note as it stands.
        is_first: whether this note has never had a part of ours: it is added below what there is. Otherwise a note
            without one is left alone: somebody has changed it, or does not want it. One that was emptied is filled.
    """
    for mark in _MARK.finditer(there):
        begins = mark.start() - int(mark[2])
        if begins >= 0 and _digest(there[begins : mark.start()]) == mark[1]:
            return there[:begins] + marked(text) + there[mark.end() :].removeprefix("\n")
    if not there.strip():
        return marked(text)
    return f"{there.rstrip()}\n\n{marked(text)}" if is_first else there


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
