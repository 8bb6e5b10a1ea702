"""Errors as they are told."""

from collections.abc import Iterator

from router.domain import errors
from router.domain.errors import DomainError


def kinds(base: type[DomainError] = DomainError) -> Iterator[type[DomainError]]:
    """Every class of error that the domain defines."""
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
        yield from kinds(kind)


def test_each_error_has_a_reason_of_its_own() -> None:
    reasons = [kind.reason for kind in kinds()]

    assert len(set(reasons)) == len(reasons)
    assert all(reason.isupper() for reason in reasons)


def test_a_message_that_quotes_a_huge_name_stays_short_enough_to_be_sent() -> None:
    error = errors.TaskNotFound(f'task "{"🦙" * 100_000}" does not exist')

    assert len(error.message.encode()) <= 1300
    assert error.message.startswith('task "🦙')
    assert error.message.endswith("…")
