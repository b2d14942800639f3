"""The operators of reactivex, as they are declared here: what is changed, and what is checked.

One that it does right is taken over. One that holds items gets a gate in front, so that a time
limit doesn't discard them; one that shares its source belongs to the whole run.
"""

from __future__ import annotations

from reactivex import operators as rx

from rxflow.operators import checking as check
from rxflow.operators import comparing
from rxflow.operators.beginning import at_once
from rxflow.operators.buffers import batched, emptied_after, never_empty
from rxflow.operators.declaring import operator
from rxflow.operators.delaying import delayed, thinned
from rxflow.operators.flattening import opening
from rxflow.operators.holding import feeding, held, outlasting
from rxflow.operators.sharing import shared
from rxflow.operators.stateful import computing, stateful, stripped

# fmt: off
__all__ = [
    "all", "amb", "as_observable", "catch", "combine_latest", "concat", "concat_all",
    "contains", "debounce", "default_if_empty", "delay", "delay_with_mapper", "dematerialize",
    "distinct", "distinct_until_changed", "do_action", "do_while", "element_at",
    "element_at_or_default", "exclusive", "filter_indexed", "finally_action", "find",
    "find_index", "first", "first_or_default", "fork_join", "group_join", "ignore_elements",
    "is_empty", "join", "last", "last_or_default", "materialize", "max", "max_by", "merge_all",
    "min", "min_by", "multicast", "observe_on", "on_error_resume_next", "pairwise", "publish",
    "repeat", "retry", "sample", "sequence_equal", "single", "single_or_default",
    "single_or_default_async", "skip", "skip_last", "skip_last_with_time", "skip_until",
    "skip_until_with_time", "skip_while", "skip_while_indexed", "skip_with_time", "slice",
    "some", "switch_latest", "take", "take_last", "take_last_buffer", "take_last_with_time",
    "take_while", "take_while_indexed", "tap", "throttle_first", "throttle_with_mapper",
    "throttle_with_timeout", "timeout", "timeout_with_mapper", "to_dict", "to_future",
    "to_iterable", "to_list", "to_marbles", "to_set", "while_do", "window", "window_when",
    "with_latest_from", "zip", "zip_latest", "zip_with_iterable", "zip_with_list",
]
# fmt: on

# What is as it is.

amb = operator(right_source=check.stream)(rx.amb)
as_observable = operator(is_single=True)(rx.as_observable)
dematerialize = operator()(rx.dematerialize)
do_action = operator(is_single=True)(rx.do_action)
element_at = operator(is_single=True, index=check.at_least_zero)(rx.element_at)
filter_indexed = operator(is_single=True)(rx.filter_indexed)
finally_action = operator(is_single=True)(rx.finally_action)
first = operator(is_single=True)(rx.first)
ignore_elements = operator(is_single=True)(rx.ignore_elements)
materialize = operator()(rx.materialize)
observe_on = operator(is_single=True)(rx.observe_on)
skip = operator(is_single=True, count=check.at_least_zero)(rx.skip)
skip_until = operator(other=check.stream)(rx.skip_until)
skip_until_with_time = operator(start_time=check.time)(rx.skip_until_with_time)
skip_while = operator(is_single=True)(rx.skip_while)
skip_while_indexed = operator()(rx.skip_while_indexed)
skip_with_time = operator(is_single=True, duration=check.wait)(rx.skip_with_time)
take = operator(is_single=True, count=check.at_least_zero)(rx.take)
take_while = operator(is_single=True, inclusive=check.flag)(rx.take_while)
take_while_indexed = operator(inclusive=check.flag)(rx.take_while_indexed)
tap = operator(is_single=True)(rx.tap)
throttle_first = operator(is_single=True, window_duration=check.seconds)(rx.throttle_first)
timeout = operator(is_single=True, duetime=check.time, other=check.stream)(rx.timeout)
timeout_with_mapper = operator(first_timeout=check.observable, other=check.stream)(
    rx.timeout_with_mapper
)
zip_with_iterable = operator(second=check.iterable)(rx.zip_with_iterable)
zip_with_list = operator(called="zip_with_list", second=check.iterable)(rx.zip_with_list)

# What is compared, and what is a key, are payloads.

contains = operator(comparing.equal, computing, held, value=check.anything)(rx.contains)
distinct = operator(comparing.distinct, is_single=True)(rx.distinct)
distinct_until_changed = operator(comparing.distinct, is_single=True)(rx.distinct_until_changed)
max = operator(comparing.compared, stateful, held)(rx.max)
max_by = operator(comparing.compared_by, stateful, batched, held)(rx.max_by)
min = operator(comparing.compared, stateful, held)(rx.min)
min_by = operator(comparing.compared_by, stateful, batched, held)(rx.min_by)
sequence_equal = operator(comparing.equal, computing, held, second=check.stream_or_iterable)(
    rx.sequence_equal
)
to_marbles = operator(comparing.shown, computing, held, timespan=check.seconds)(rx.to_marbles)

# Of messages whose payload is a stream, that stream is meant.

concat_all = operator(opening)(rx.concat_all)
exclusive = operator(opening)(rx.exclusive)
merge_all = operator(opening)(rx.merge_all)
switch_latest = operator(opening)(rx.switch_latest)

# What is remembered has no delivery; what is computed travels in an envelope.

all = operator(computing, held)(rx.all)
combine_latest = operator(stateful, others=check.stream)(rx.combine_latest)
find_index = operator(computing, held)(rx.find_index)
fork_join = operator(stateful, held, others=check.stream)(rx.fork_join)
group_join = operator(stateful, right=check.observable)(rx.group_join)
is_empty = operator(computing, held)(rx.is_empty)
join = operator(stateful, right=check.observable)(rx.join)
last = operator(stateful, held, is_single=True)(rx.last)
last_or_default = operator(stateful, held, default_value=check.anything)(rx.last_or_default)
pairwise = operator(stateful)(rx.pairwise)
single = operator(stateful, held)(rx.single)
single_or_default = operator(stateful, held, default_value=check.anything)(rx.single_or_default)
single_or_default_async = operator(
    stateful, held, has_default=check.flag, default_value=check.anything
)(rx.single_or_default_async)
some = operator(computing, held)(rx.some)
to_future = operator(stripped, is_subscribing=True)(rx.to_future)
with_latest_from = operator(stateful, sources=check.observable)(rx.with_latest_from)
zip_latest = operator(stateful, others=check.stream)(rx.zip_latest)

# What holds deliveries emits them at a time limit at the latest.

debounce = operator(thinned, is_single=True, duetime=check.wait)(rx.debounce)
default_if_empty = operator(held, default_value=check.anything)(rx.default_if_empty)
delay = operator(delayed, is_single=True, duetime=check.time)(rx.delay)
delay_with_mapper = operator(delayed, subscription_delay=check.stream_or_function)(
    rx.delay_with_mapper
)
element_at_or_default = operator(held, index=check.at_least_zero, default_value=check.anything)(
    rx.element_at_or_default
)
find = operator(held)(rx.find)
first_or_default = operator(held, default_value=check.anything)(rx.first_or_default)
sample = operator(thinned, sampler=check.stream_or_wait)(rx.sample)
skip_last = operator(held, is_single=True, count=check.at_least_zero)(rx.skip_last)
skip_last_with_time = operator(held, duration=check.wait)(rx.skip_last_with_time)
slice = operator(held, start=check.whole, stop=check.whole, step=check.at_least_one)(rx.slice)
take_last = operator(held, is_single=True, count=check.at_least_zero)(rx.take_last)
take_last_buffer = operator(batched, never_empty, held, count=check.at_least_zero)(
    rx.take_last_buffer
)
take_last_with_time = operator(held, duration=check.wait)(rx.take_last_with_time)
throttle_with_mapper = operator(thinned)(rx.throttle_with_mapper)
throttle_with_timeout = operator(
    thinned, is_single=True, called="throttle_with_timeout", duetime=check.wait
)(rx.throttle_with_timeout)
to_dict = operator(emptied_after, held)(rx.to_dict)
to_iterable = operator(batched, held)(rx.to_iterable)
to_list = operator(batched, held, called="to_list")(rx.to_list)
to_set = operator(emptied_after, held)(rx.to_set)
zip = operator(outlasting, args=check.stream)(rx.zip)

# What is fed goes on for as long as that.

window = operator(feeding, boundaries=check.observable)(rx.window)
window_when = operator(feeding)(rx.window_when)

# What would miss the first items of a group or a window subscribes at once.

catch = operator(at_once, handler=check.stream_or_function)(rx.catch)
concat = operator(at_once, sources=check.observable)(rx.concat)
do_while = operator(at_once)(rx.do_while)
on_error_resume_next = operator(at_once, second=check.stream)(rx.on_error_resume_next)
repeat = operator(at_once, repeat_count=check.at_least_zero)(rx.repeat)
retry = operator(at_once, retry_count=check.at_least_zero)(rx.retry)
while_do = operator(at_once)(rx.while_do)

# What several pipelines share belongs to the run.

multicast = operator(shared, subject=check.subject)(rx.multicast)
publish = operator(shared)(rx.publish)
