"""What a refused reply is, and the one thing that every kind of reply is held against: how large it is.

A ClientApp's reply may hold anything (shares of a secret, trees that grow, answers to a query), so nothing is known of
what belongs in it. Its size is looked at where it was made, before it is sent, and so before anybody has to hold it.
"""

from __future__ import annotations

REFUSED = 6
"""Flower's code for a failed precondition."""

ALWAYS_ALLOWED = 2**30
"""One GiB: a small message may ask for much (a query, the first tree), and a cohort of these still fits a disk."""

TIMES_SENT = 4
"""A model that came in float16 or int8 may go back in float32, and a masked one in twice the bits of float32."""


def too_large(got: int, *, sent: int, most: int | None) -> str:
    """Why a reply of ``got`` bytes to a message of ``sent`` bytes is refused, "" if it is not.

    ``most``: bytes a reply may have; None: what was sent four times over, and 1 GiB in any case.

    >>> too_large(2**30, sent=0, most=None)
    ''
    >>> too_large(11, sent=0, most=10)
    'refused: its reply has 11 bytes, at most 10 (--max-reply-bytes)'
    """
    allowed = max(ALWAYS_ALLOWED, TIMES_SENT * sent) if most is None else most
    return f"refused: its reply has {got} bytes, at most {allowed} (--max-reply-bytes)" if got > allowed else ""
