"""Every operator of reactivex under its own name, safe for messages, and rxflow's own.

`OPERATORS` is the one table: what this module exports and the fluent methods of `Flow` come from
it. An operator that reactivex does right is taken over; one that holds items gets a gate in front,
so that the end of time doesn't discard them; one that shares its source belongs to the whole run;
the rest is ours, by family, in the files beside this one.
"""

# pyright: reportUnusedImport=false
# What is imported for its type is exported by the table.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from reactivex import operators as rx

# For the types of what is not ours; what they are stands in the table.
from reactivex.operators import (  # noqa: F401
    all,
    amb,
    as_observable,
    buffer,
    buffer_when,
    catch,
    combine_latest,
    concat,
    concat_all,
    contains,
    debounce,
    default_if_empty,
    delay,
    delay_subscription,
    delay_with_mapper,
    dematerialize,
    distinct,
    distinct_until_changed,
    do_action,
    do_while,
    element_at,
    element_at_or_default,
    exclusive,
    filter_indexed,
    finally_action,
    find,
    find_index,
    first,
    first_or_default,
    fork_join,
    group_join,
    ignore_elements,
    is_empty,
    join,
    last,
    last_or_default,
    materialize,
    max,
    max_by,
    merge_all,
    min,
    min_by,
    multicast,
    observe_on,
    on_error_resume_next,
    pairwise,
    partition,
    partition_indexed,
    publish,
    repeat,
    retry,
    sample,
    sequence_equal,
    single,
    single_or_default,
    single_or_default_async,
    skip,
    skip_last,
    skip_last_with_time,
    skip_until,
    skip_until_with_time,
    skip_while,
    skip_while_indexed,
    skip_with_time,
    slice,
    some,
    start_with,
    subscribe_on,
    switch_latest,
    take,
    take_last,
    take_last_buffer,
    take_last_with_time,
    take_while,
    take_while_indexed,
    tap,
    throttle_first,
    throttle_with_mapper,
    throttle_with_timeout,
    timeout,
    timeout_with_mapper,
    to_dict,
    to_future,
    to_iterable,
    to_list,
    to_marbles,
    to_set,
    while_do,
    window,
    window_when,
    with_latest_from,
    zip,
    zip_latest,
    zip_with_iterable,
    zip_with_list,
)

from rxflow.operators import comparing
from rxflow.operators.buffers import (
    batched,
    buffer_toggle,
    buffer_with_count,
    buffer_with_time,
    buffer_with_time_or_count,
    never_empty,
)
from rxflow.operators.checking import checked
from rxflow.operators.decoding import decode_json
from rxflow.operators.ending import take_until, take_until_with_time, take_with_time
from rxflow.operators.flattening import (
    concat_map,
    expand,
    flat_map,
    flat_map_indexed,
    flat_map_latest,
    merge,
    opening,
    switch_map,
    switch_map_indexed,
)
from rxflow.operators.grouping import group_by, group_by_until
from rxflow.operators.holding import held
from rxflow.operators.mapping import (
    filter,
    map,
    map_indexed,
    pluck,
    pluck_attr,
    starmap,
    starmap_indexed,
    time_interval,
    timestamp,
)
from rxflow.operators.operator import Operator, labelled
from rxflow.operators.reducing import average, count, reduce, scan, sum
from rxflow.operators.releasing import delayed, thinned
from rxflow.operators.remembering import computing, remembering, stripped
from rxflow.operators.sharing import publish_value, ref_count, replay, share, shared
from rxflow.operators.watching import do
from rxflow.operators.windows import (
    window_toggle,
    window_with_count,
    window_with_time,
    window_with_time_or_count,
)

_OURS: Final[tuple[Callable[..., Any], ...]] = (
    average,
    buffer_toggle,
    buffer_with_count,
    buffer_with_time,
    buffer_with_time_or_count,
    concat_map,
    count,
    decode_json,
    do,
    expand,
    filter,
    flat_map,
    flat_map_indexed,
    flat_map_latest,
    group_by,
    group_by_until,
    map,
    map_indexed,
    merge,
    pluck,
    pluck_attr,
    publish_value,
    reduce,
    ref_count,
    replay,
    scan,
    share,
    starmap,
    starmap_indexed,
    sum,
    switch_map,
    switch_map_indexed,
    take_until,
    take_until_with_time,
    take_with_time,
    time_interval,
    timestamp,
    window_toggle,
    window_with_count,
    window_with_time,
    window_with_time_or_count,
)

_CHANGES: Final[tuple[tuple[Callable[..., Any], str], ...]] = (
    # What is compared, and what is a key.
    (comparing.distinct, "distinct distinct_until_changed"),
    (comparing.compared, "max min"),
    (comparing.compared_by, "max_by min_by"),
    (comparing.shown, "to_marbles"),
    (comparing.equal, "contains sequence_equal"),
    # Whose envelope the results travel in.
    (opening, "concat_all exclusive merge_all switch_latest"),
    # What remembers: no delivery.
    (computing, "all average contains count find_index is_empty reduce scan sequence_equal some"),
    (computing, "sum to_marbles"),
    (remembering, "combine_latest fork_join group_join join last last_or_default max max_by min"),
    (remembering, "min_by pairwise single single_or_default single_or_default_async"),
    (remembering, "with_latest_from zip_latest"),
    (stripped, "to_future"),
    # What holds: deliveries, until the end of time at the latest.
    (delayed, "delay delay_with_mapper"),
    (thinned, "debounce sample throttle_with_mapper throttle_with_timeout"),
    (batched, "buffer buffer_toggle buffer_when max_by min_by take_last_buffer to_iterable"),
    (batched, "to_list"),
    (never_empty, "buffer buffer_toggle buffer_when take_last_buffer"),
    (held, "all average buffer buffer_when contains count default_if_empty element_at_or_default"),
    (held, "find find_index first_or_default fork_join group_by group_by_until is_empty last"),
    (held, "last_or_default max max_by min min_by reduce sequence_equal single single_or_default"),
    (held, "single_or_default_async slice some sum take_last take_last_buffer take_last_with_time"),
    (held, "to_dict to_iterable to_list to_marbles to_set window window_when"),
    # What several pipelines share belongs to the run.
    (shared, "multicast publish publish_value replay"),
)


def _table() -> dict[str, Callable[..., Operator[Any, Any]]]:
    made: dict[str, Callable[..., Any]] = {name: getattr(rx, name) for name in rx.__all__}
    made |= {make.__name__: make for make in _OURS}
    for change, names in _CHANGES:
        made |= {name: change(made[name]) for name in names.split()}
    return {name: labelled(name, checked(name, make)) for name, make in made.items()}


OPERATORS: Final = _table()
"""Name -> function, for every operator."""

globals().update(OPERATORS)

__all__ = ["decode_json"]
__all__ += rx.__all__
