"""`Flow`: the Observable that knows its source and its operators, with the fluent methods.

It adds no observer of its own: to an item it is the observable inside. Subscribed to without a
scheduler it takes that of the running asyncio loop, and where none runs, that of rxflow's
background thread, so that one pipeline is always one thread.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from reactivex import ConnectableObservable, Observable, abc
from reactivex import operators as rx
from reactivex.disposable import CompositeDisposable
from reactivex.internal import noop
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import arguments
from rxflow.background import Bare, background
from rxflow.errors import ConfigError
from rxflow.operators import OPERATORS
from rxflow.operators.checking import uncalled
from rxflow.operators.operator import Operator, Transform, name_of
from rxflow.process.environment import running_loop
from rxflow.scope import scope_of, unscoped, within

T = TypeVar("T", covariant=True)  # noqa: PLC0105 (one letter, as in every generic here)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
Z = TypeVar("Z")


if TYPE_CHECKING:
    from rxflow._fluent import Fluent
else:
    Fluent = Observable


class Flow(Fluent[T]):
    """An observable with a name, and the operators that were put on it.

    Args:
        inner: What is subscribed to.
        label: What its source is called; without credentials.
        operators: The labels of its operators, in order.

    Attributes:
        inner: The same.
        label: The same.
        operators: The same.
        is_single: True if at most one row can come of a message of its source.
    """

    is_single = False

    def __init__(
        self, inner: Observable[T], *, label: str, operators: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        arguments.observable("inner", inner)
        arguments.text("label", label, is_empty_fine=True)
        if not isinstance(cast("object", operators), tuple):
            arguments.refuse("operators", "a tuple of labels", operators)
        self.label = label
        self.operators = operators
        self.inner = inner

    def __repr__(self) -> str:
        return " | ".join((self.label, *self.operators))

    def subscribe(
        self,
        on_next: abc.ObserverBase[T] | abc.OnNext[T] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """Subscribe an observer, or functions, to what this emits.

        Without a scheduler it runs on the asyncio loop of this thread. Without such a loop it runs
        on rxflow's background thread: this call returns when it is subscribed there, and so does
        the disposable's `dispose`; at exit the pipeline is completed and drained.

        Args:
            on_next: An observer, or a function for each item.
            on_error: A function for the error. Without it, and without an observer, asyncio's
                handler of exceptions gets it: it is logged with its traceback.
            on_completed: A function for the end.
            scheduler: Runs the timers of the whole pipeline.
        """
        own, scope = unscoped(scheduler), scope_of(scheduler)
        if scope is None:  # it is the user's own
            _check_subscription(on_next, on_error, on_completed, scheduler)
            if on_error is None and not arguments.is_observer(on_next):
                return self._subscribe_untold(on_next, on_completed, scheduler)
        loop = running_loop()
        if own and (loop or scope):
            return super().subscribe(on_next, on_error, on_completed, scheduler=scheduler)
        if loop:
            here = within(scope, AsyncIOScheduler(loop))
            return super().subscribe(on_next, on_error, on_completed, scheduler=here)
        bare = Bare(scope)
        return bare.subscribe(super().subscribe, on_next, on_error, on_completed, own)

    def _subscribe_untold(
        self, on_next: Any, on_completed: Any, scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        """Nobody takes the error: the caller, or else asyncio, is told, as of a callback's."""
        errors: list[Exception] = []
        is_subscribed = False

        def tell(error: Exception) -> None:
            loop = running_loop() or background().loop
            text = f"the error of a stream was not handled; give subscribe an on_error: {self}"
            loop.call_exception_handler({"message": text, "exception": error})

        def on_error(error: Exception) -> None:
            if is_subscribed:
                tell(error)
            else:
                errors.append(error)
                raise error  # operators in between may swallow it

        subscription = self.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
        is_subscribed = True
        for error in errors:
            tell(error)
        return subscription

    def _subscribe_core(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return self.inner._subscribe_core(observer, scheduler)  # noqa: SLF001

    @overload
    def pipe(self, op1: Callable[[Observable[T]], Z], /) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Callable[[Observable[A]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Transform[A, B],
        op3: Callable[[Observable[B]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Transform[A, B],
        op3: Transform[B, C],
        op4: Callable[[Observable[C]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Transform[A, B],
        op3: Transform[B, C],
        op4: Transform[C, D],
        op5: Callable[[Observable[D]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Transform[A, B],
        op3: Transform[B, C],
        op4: Transform[C, D],
        op5: Transform[D, E],
        op6: Callable[[Observable[E]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Transform[A, B],
        op3: Transform[B, C],
        op4: Transform[C, D],
        op5: Transform[D, E],
        op6: Transform[E, F],
        op7: Callable[[Observable[F]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Transform[T, A],
        op2: Transform[A, B],
        op3: Transform[B, C],
        op4: Transform[C, D],
        op5: Transform[D, E],
        op6: Transform[E, F],
        op7: Transform[F, G],
        op8: Callable[[Observable[G]], Z],
        /,
    ) -> Z: ...
    @overload
    def pipe(
        self,
        op1: Callable[[Any], Any],
        op2: Callable[[Any], Any],
        op3: Callable[[Any], Any],
        op4: Callable[[Any], Any],
        op5: Callable[[Any], Any],
        op6: Callable[[Any], Any],
        op7: Callable[[Any], Any],
        op8: Callable[[Any], Any],
        op9: Callable[[Any], Any],
        /,
        *operators: Callable[[Any], Any],
    ) -> Any: ...
    @overload
    def pipe(self) -> Flow[T]: ...
    # What reactivex's own takes is taken, only typed by the items.
    def pipe(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *operators: Callable[[Any], Any]
    ) -> Any:
        """Put operators on this, from left to right.

        Args:
            operators: Of `rxflow.operators`, or any function from an observable to something else.

        Returns:
            What the last one returns; of an observable, a `Flow`.
        """
        result: Any = self
        for operator in operators:
            _check_operator(operator, result)
            if isinstance(result, Flow):
                flow = cast("Flow[Any]", result)
                # An operator that reactivex composes of others would name those.
                is_ours = isinstance(operator, Operator) and not operator.is_subscribing
                source = flow.inner if is_ours else flow
                result = flow.named(operator(source), operator)
            else:
                result = operator(result)
        return result

    def named(self, made: Any, operator: object) -> Any:
        """Return the result of an operator as a `Flow` that knows its operators."""
        if isinstance(made, list):
            return [self.named(one, operator) for one in cast("list[Any]", made)]
        if not isinstance(made, Observable) or isinstance(made, Flow):
            return made
        name = name_of(operator)
        # reactivex composes some of others, which are named already.
        operators = self.operators if name == "rx.compose" else (*self.operators, name)
        inner = cast("Observable[Any]", made)
        if isinstance(inner, ConnectableObservable):
            return ConnectableFlow(inner, label=self.label, operators=operators)
        flow = Flow(inner, label=self.label, operators=operators)
        flow.is_single = self.is_single and getattr(operator, "is_single", False)
        return flow


class ConnectableFlow(Flow[A], ConnectableObservable[A]):  # pyright: ignore[reportIncompatibleMethodOverride]  # `pipe`
    """A `Flow` that `connect` starts: the result of `publish`, `replay` and `multicast`."""

    def __init__(
        self, inner: ConnectableObservable[A], *, label: str, operators: tuple[str, ...] = ()
    ) -> None:
        Observable.__init__(self)
        self.label = label
        self.operators = operators
        self.inner = self._connectable = inner

    @property
    def source(self) -> abc.ObservableBase[A]:
        """The observable that `connect` subscribes to."""
        return self._connectable.source

    @source.setter
    def source(self, source: abc.ObservableBase[A]) -> None:
        self._connectable.source = source

    @property
    def subject(self) -> abc.SubjectBase[A]:
        """The subject between the source and the observers."""
        return self._connectable.subject

    def connect(self, scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase | None:
        """Subscribe to the source, on the thread that `subscribe` would choose."""
        if unscoped(scheduler):
            return self._connectable.connect(scheduler)
        if loop := running_loop():
            here = within(scope_of(scheduler), AsyncIOScheduler(loop))
            return self._connectable.connect(here)

        def subscribe(
            on_next: Any, on_error: Any, on_completed: Any, *, scheduler: abc.SchedulerBase
        ) -> abc.DisposableBase:
            end = self._connectable.subject.subscribe(on_next, on_error, on_completed)
            return CompositeDisposable(self._connectable.connect(scheduler), end)

        return Bare(scope_of(scheduler)).subscribe(subscribe, None, noop, None)

    def auto_connect(self, subscriber_count: int = 1) -> Observable[A]:
        """Connect when so many have subscribed; with 0, at once."""
        arguments.check_range("subscriber_count", subscriber_count, 0)
        if subscriber_count == 0:
            self.connect()
        made = self._connectable.auto_connect(subscriber_count)
        operators = (*self.operators, f"auto_connect({subscriber_count})")
        return Flow(made, label=self.label, operators=operators)


def _check_subscription(on_next: Any, on_error: Any, on_completed: Any, scheduler: object) -> None:
    if on_next is not None and not arguments.is_observer(on_next):
        arguments.function("on_next", on_next, or_else=", or an observer: a sink that was made")
    for name, value in (("on_error", on_error), ("on_completed", on_completed)):
        if value is not None:
            arguments.function(name, value)
    if scheduler is not None and not isinstance(scheduler, abc.SchedulerBase):
        arguments.refuse("scheduler", "a scheduler or None", scheduler)


def _check_operator(operator: Any, source: Any) -> None:
    """Refuse what is no operator, one that was not called, and one that has no stream to work on.

    Raises:
        ConfigError: It is so.
    """
    arguments.operator("operators", operator)
    if (name := _UNCALLED.get(id(operator))) is not None:
        raise uncalled(name)
    if isinstance(source, Flow) and name_of(operator) == "rx.subscribe_on":
        # It ends through its scheduler: until then what comes is dropped, and acknowledged.
        raise ConfigError(
            "subscribe_on must be that of rxflow.operators: from the one of reactivex itself a "
            "source hears too late of an end or an error, and acknowledges what nobody has"
        )
    if isinstance(operator, Operator) and not isinstance(source, abc.ObservableBase):
        made = type(source).__name__
        rule = f"each follow an Observable; the one before {operator.label} makes a {made}"
        raise arguments.wrong("operators", rule)


_UNCALLED: Final = {
    id(make): name for name, ours in OPERATORS.items() for make in (ours, getattr(rx, name, ours))
}
_SELF: Final = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)


def _fluent(make: Callable[..., Operator[Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(make)
    def method(self: Flow[Any], *args: Any, **kwargs: Any) -> Any:
        return self.pipe(make(*args, **kwargs))

    # A bound method drops its first parameter; without this it would be one of the function's.
    taken = inspect.signature(make)
    parameters = [_SELF, *taken.parameters.values()]
    vars(method)["__signature__"] = taken.replace(parameters=parameters)
    return method


for _name, _make in OPERATORS.items():
    setattr(Flow, _name, _fluent(_make))
