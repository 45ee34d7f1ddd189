"""Buckets: what is let through, when again, and whom it is counted for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agentex.auth.principal import Principal, PrincipalType
from agentex.edge_settings import Rate
from agentex.errors import RateLimited
from agentex.rates import Buckets, Rates
from agentex.settings import Settings

GOOD = Principal(principal_type=PrincipalType.USER, user_id="user:ann")


@dataclass
class Clock:
    """Stands still until it is told."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_through_and_then_as_many_as_the_rate_says() -> None:
    clock = Clock()
    buckets = Buckets(Rate(10, 5), clock=clock)

    at_once = [buckets.take("a") for _ in range(6)]
    clock.now += 0.1
    later = [buckets.take("a") for _ in range(2)]

    assert at_once == [0, 0, 0, 0, 0, pytest.approx(0.1)]
    assert later == [0, pytest.approx(0.1)]


def test_a_refusal_costs_nothing() -> None:
    clock = Clock()
    buckets = Buckets(Rate(1, 1), clock=clock)
    assert buckets.take("a") == 0
    for _ in range(100):
        assert buckets.take("a") > 0
    clock.now += 1
    assert buckets.take("a") == 0


def test_what_came_in_at_once_is_waited_for_later_but_not_for_ever() -> None:
    clock = Clock()
    buckets = Buckets(Rate(1, 10), clock=clock)
    for _ in range(1_000):
        buckets.charge("a", 1)
    assert buckets.take("a", 0) == pytest.approx(10)
    clock.now += 10
    assert buckets.take("a", 0) == 0


def test_keys_do_not_share_and_the_oldest_is_forgotten() -> None:
    buckets = Buckets(Rate(1, 1), clock=Clock(), max_keys=2)
    assert [buckets.take(key) for key in ("a", "b")] == [0, 0]
    assert buckets.take("a") > 0
    for number in range(100):
        buckets.charge(number, 1)
    assert (len(buckets), buckets.take("a")) == (2, 0)


def guesses_until_refused(rates: Rates, address: str) -> int:
    for number in range(1_000):
        mark = rates.mark(f"guess {number}".encode())
        try:
            rates.admit(address, mark)
        except RateLimited:
            return number
        rates.failed(address, mark)
    return 1_000


def test_an_address_that_guesses_is_refused_and_whoever_has_a_key_there_is_not() -> None:
    rates = Rates(Rate(0.001, 20), None)
    known = rates.mark(b"Bearer of ann")
    rates.opened(GOOD, known)

    assert guesses_until_refused(rates, "192.0.2.1") == 20
    rates.admit("192.0.2.1", known)
    rates.admit("192.0.2.2", b"")
    with pytest.raises(RateLimited) as refused:
        rates.admit("192.0.2.1", b"")
    assert refused.value.retry_after_seconds > 0


def test_a_key_that_opens_nothing_any_more_is_like_any_guess() -> None:
    rates = Rates(Rate(0.001, 20), None)
    mark = rates.mark(b"Bearer of ann")
    rates.opened(GOOD, mark)
    rates.failed("192.0.2.1", mark)
    guesses_until_refused(rates, "192.0.2.1")
    with pytest.raises(RateLimited):
        rates.admit("192.0.2.1", mark)


def test_requests_that_do_not_fail_cost_a_hundredth() -> None:
    rates = Rates(Rate(0.001, 2), None)
    for _ in range(200):
        rates.admit("192.0.2.1", b"")
    with pytest.raises(RateLimited):
        rates.admit("192.0.2.1", b"")


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:ffff::1", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_household_of_ipv6_is_one_address(one: str, other: str, is_shared: bool) -> None:
    rates = Rates(Rate(0.001, 5), None)
    guesses_until_refused(rates, one)
    assert (guesses_until_refused(rates, other) == 0) == is_shared


def test_principals_have_a_bucket_each_by_account_and_name() -> None:
    rates = Rates(None, Rate(0.001, 1))
    others = [
        GOOD.model_copy(update={"account_id": "other"}),
        GOOD.model_copy(update={"user_id": "user:bob"}),
        GOOD.model_copy(update={"principal_type": PrincipalType.SERVICE_ACCOUNT}),
    ]
    for principal in (GOOD, *others):
        rates.opened(principal, b"")
    with pytest.raises(RateLimited, match="principal"):
        rates.opened(GOOD, b"")


@pytest.mark.parametrize(
    ("auth", "given", "limited"),
    [
        ("none", {}, False),
        ("none", {"rate_limit_per_address": "1:1"}, True),
        ("api_keys", {}, True),
        ("api_keys", {"rate_limit_per_address": ""}, False),
    ],
)
def test_rates_are_off_without_auth_unless_they_are_set(
    auth: str, given: dict[str, str], limited: bool
) -> None:
    settings = Settings.model_validate(given).model_copy(update={"auth": auth})
    assert Rates.of(settings).by_address is limited


def test_what_memory_holds_of_a_credential_is_not_its_hash_elsewhere() -> None:
    assert Rates(None, None).mark(b"Bearer x") != Rates(None, None).mark(b"Bearer x")
