"""Operators of reactivex itself in a pipeline: what they make has lost its delivery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Operators that pass on an item while it is on its way, or none.
_PASSING_NAMES: Final = """
    as_observable catch concat_map decode_json default_if_empty distinct distinct_until_changed do
    do_action element_at element_at_or_default expand filter filter_indexed finally_action find
    find_index first first_or_default flat_map flat_map_indexed map map_indexed merge merge_all
    on_error_resume_next pluck pluck_attr publish ref_count repeat retry scan share skip skip_until
    skip_until_with_time skip_while skip_while_indexed skip_with_time start_with starmap
    starmap_indexed take take_until take_until_with_time take_while take_while_indexed
    take_with_time tap throttle_first time_interval timeout timestamp
"""
_PASSING: Final = frozenset(_PASSING_NAMES.split())

# Operators that make one item of several messages: reactivex keeps the delivery of the last alone.
_JOINING_NAMES: Final = """
    average buffer buffer_toggle buffer_when buffer_with_count buffer_with_time
    buffer_with_time_or_count combine_latest fork_join last max min pairwise reduce sum
    take_last_buffer to_dict to_iterable to_list to_set with_latest_from zip zip_with_iterable
"""
_JOINING: Final = frozenset(_JOINING_NAMES.split())


def early(operators: Sequence[str], *, is_made_of_message: bool) -> str | None:
    """Return the operator that acknowledges a message before its results are stored, if any.

    Args:
        operators: The labels of a pipeline's operators, in order.
        is_made_of_message: Whether a plain value came to its sink while a message was on its way.
    """
    plain = next((name for name in operators if name.startswith("rx.")), None)
    if plain is None:
        return None
    at = operators.index(plain)
    holding = [name for name in operators[at + 1 :] if _bare_name(name) not in _PASSING]
    if joining := [name for name in operators[:at] if _bare_name(name) in _JOINING]:
        plain, holding = f"{plain} behind {joining[-1]}", holding or ["what comes of it"]
    if is_made_of_message and not holding:
        return None
    return (
        f"{plain} is an operator of reactivex itself: what it makes of a message has lost its "
        "delivery, so the message is acknowledged before "
        f"{holding[0] if holding else 'what comes of it'} is stored; use the operator of "
        "rxflow.operators"
    )


def _bare_name(operator: str) -> str:
    return operator.split("(", maxsplit=1)[0].rsplit(".", maxsplit=1)[-1]
