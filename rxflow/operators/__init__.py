"""Every operator of reactivex under its own name, safe for messages, and rxflow's own.

`OPERATORS` is the one table: what this module exports and the fluent methods of `Flow` come from
it. An operator that reactivex does right is taken over; one that holds items gets a gate in front,
so that the end of time doesn't discard them; one that shares its source belongs to the whole run;
the rest is ours, by family, in the files beside this one.
"""

# It would give each `as` a statement of its own.
# isort: skip_file

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from reactivex import operators as rx

# What is not ours. `as` says that a name is exported: mypy can't follow an `__all__` that is made
# of another's.
from reactivex.operators import (
    all as all,
    amb as amb,
    as_observable as as_observable,
    catch as catch,
    combine_latest as combine_latest,
    concat as concat,
    concat_all as concat_all,
    contains as contains,
    debounce as debounce,
    default_if_empty as default_if_empty,
    delay as delay,
    delay_with_mapper as delay_with_mapper,
    dematerialize as dematerialize,
    distinct as distinct,
    distinct_until_changed as distinct_until_changed,
    do_action as do_action,
    do_while as do_while,
    element_at as element_at,
    element_at_or_default as element_at_or_default,
    exclusive as exclusive,
    filter_indexed as filter_indexed,
    finally_action as finally_action,
    find as find,
    find_index as find_index,
    first as first,
    first_or_default as first_or_default,
    fork_join as fork_join,
    group_join as group_join,
    ignore_elements as ignore_elements,
    is_empty as is_empty,
    join as join,
    last as last,
    last_or_default as last_or_default,
    materialize as materialize,
    max as max,
    max_by as max_by,
    merge_all as merge_all,
    min as min,
    min_by as min_by,
    multicast as multicast,
    observe_on as observe_on,
    on_error_resume_next as on_error_resume_next,
    pairwise as pairwise,
    publish as publish,
    repeat as repeat,
    retry as retry,
    sample as sample,
    sequence_equal as sequence_equal,
    single as single,
    single_or_default as single_or_default,
    single_or_default_async as single_or_default_async,
    skip as skip,
    skip_last as skip_last,
    skip_last_with_time as skip_last_with_time,
    skip_until as skip_until,
    skip_until_with_time as skip_until_with_time,
    skip_while as skip_while,
    skip_while_indexed as skip_while_indexed,
    skip_with_time as skip_with_time,
    slice as slice,
    some as some,
    switch_latest as switch_latest,
    take as take,
    take_last as take_last,
    take_last_buffer as take_last_buffer,
    take_last_with_time as take_last_with_time,
    take_while as take_while,
    take_while_indexed as take_while_indexed,
    tap as tap,
    throttle_first as throttle_first,
    throttle_with_mapper as throttle_with_mapper,
    throttle_with_timeout as throttle_with_timeout,
    timeout as timeout,
    timeout_with_mapper as timeout_with_mapper,
    to_dict as to_dict,
    to_future as to_future,
    to_iterable as to_iterable,
    to_list as to_list,
    to_marbles as to_marbles,
    to_set as to_set,
    while_do as while_do,
    window as window,
    window_when as window_when,
    with_latest_from as with_latest_from,
    zip as zip,
    zip_latest as zip_latest,
    zip_with_iterable as zip_with_iterable,
    zip_with_list as zip_with_list,
)

from rxflow.operators import comparing
from rxflow.operators.beginning import at_once, start_with as start_with
from rxflow.operators.buffers import (
    batched,
    buffer as buffer,
    buffer_toggle as buffer_toggle,
    buffer_when as buffer_when,
    buffer_with_count as buffer_with_count,
    buffer_with_time as buffer_with_time,
    buffer_with_time_or_count as buffer_with_time_or_count,
    emptied_after,
    never_empty,
)
from rxflow.operators.checking import checked
from rxflow.operators.decoding import decode_json as decode_json
from rxflow.operators.ending import (
    take_until as take_until,
    take_until_with_time as take_until_with_time,
    take_with_time as take_with_time,
)
from rxflow.operators.flattening import (
    concat_map as concat_map,
    expand as expand,
    flat_map as flat_map,
    flat_map_indexed as flat_map_indexed,
    flat_map_latest as flat_map_latest,
    merge as merge,
    opening,
    switch_map as switch_map,
    switch_map_indexed as switch_map_indexed,
)
from rxflow.operators.grouping import group_by as group_by, group_by_until as group_by_until
from rxflow.operators.holding import feeding, held, outlasting
from rxflow.operators.mapping import (
    filter as filter,
    map as map,
    map_indexed as map_indexed,
    pluck as pluck,
    pluck_attr as pluck_attr,
    starmap as starmap,
    starmap_indexed as starmap_indexed,
    time_interval as time_interval,
    timestamp as timestamp,
)
from rxflow.operators.operator import Operator, labelled
from rxflow.operators.reducing import (
    average as average,
    count as count,
    reduce as reduce,
    scan as scan,
    sum as sum,
)
from rxflow.operators.delaying import delayed, thinned
from rxflow.operators.stateful import computing, remembering, stripped
from rxflow.operators.scheduling import (
    delay_subscription as delay_subscription,
    scoped,
    subscribe_on as subscribe_on,
    takes_scheduler,
)
from rxflow.operators.sharing import (
    partition as partition,
    partition_indexed as partition_indexed,
    publish_value as publish_value,
    ref_count as ref_count,
    replay as replay,
    share as share,
    shared,
)
from rxflow.operators.watching import do as do
from rxflow.operators.windows import (
    window_toggle as window_toggle,
    window_with_count as window_with_count,
    window_with_time as window_with_time,
    window_with_time_or_count as window_with_time_or_count,
)

_NAMES: Final = (*rx.__all__, "decode_json")

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
    (emptied_after, "to_dict to_set"),
    (never_empty, "buffer buffer_toggle buffer_when take_last_buffer"),
    (held, "all average buffer buffer_when contains count default_if_empty element_at_or_default"),
    (held, "find find_index first_or_default fork_join is_empty last"),
    (held, "last_or_default max max_by min min_by reduce sequence_equal single single_or_default"),
    (held, "single_or_default_async skip_last skip_last_with_time slice some sum take_last"),
    (held, "take_last_buffer take_last_with_time to_dict to_iterable to_list to_marbles to_set"),
    (outlasting, "zip"),
    (feeding, "group_by group_by_until window window_when"),
    # What would miss the first items of a group or a window.
    (at_once, "catch concat do_while expand merge on_error_resume_next repeat retry while_do"),
    # What several pipelines share belongs to the run.
    (shared, "multicast publish publish_value replay"),
)


# No message leaves one of these twice: at most one row comes of it.
_SINGLE: Final = frozenset(
    [
        "as_observable",
        "buffer_with_time_or_count",
        "debounce",
        "decode_json",
        "delay",
        "distinct",
        "distinct_until_changed",
        "do",
        "do_action",
        "element_at",
        "filter",
        "filter_indexed",
        "finally_action",
        "first",
        "ignore_elements",
        "last",
        "map",
        "map_indexed",
        "observe_on",
        "pluck",
        "pluck_attr",
        "skip",
        "skip_last",
        "skip_while",
        "skip_with_time",
        "starmap",
        "starmap_indexed",
        "take",
        "take_last",
        "take_until",
        "take_until_with_time",
        "take_while",
        "take_with_time",
        "tap",
        "throttle_first",
        "throttle_with_timeout",
        "time_interval",
        "timeout",
        "timestamp",
    ]
)


def _table() -> dict[str, Callable[..., Operator[Any, Any]]]:
    imported = vars(rx) | globals()
    made: dict[str, Callable[..., Any]] = {name: imported[name] for name in _NAMES}
    for change, names in _CHANGES:
        made |= {name: change(made[name]) for name in names.split()}
    made |= {
        name: scoped(make)
        for name, make in made.items()
        if takes_scheduler(make) and name != "replay"  # which is no subscription's
    }
    return {
        name: labelled(name, checked(name, make), is_single=name in _SINGLE)
        for name, make in made.items()
    }


OPERATORS: Final = _table()
"""Name -> function, for every operator."""

globals().update(OPERATORS, __all__=[*OPERATORS])
