"""Telephone events as digits: what begins one, and how many may come."""

from __future__ import annotations

import pytest

from b2bua.sip.digits import BURST, IS_UPDATE, MOST_PER_S, Digits

IS_END = 2


def test_an_event_is_one_digit_however_many_packets_tell_of_it() -> None:
    digits = Digits()
    packets = [(0, 100, 20), (IS_UPDATE, 100, 40), (IS_UPDATE, 100, 60), (IS_UPDATE | IS_END, 100, 60)]
    assert [digits.begins(*packet) for packet in packets] == [True, False, False, False]


def test_an_event_is_one_digit_though_each_packet_has_a_time_of_its_own() -> None:
    digits = Digits()
    packets = [(0, 100, 20), *((IS_UPDATE, 100 + 20 * number, 20 * number) for number in range(2, 15))]
    assert [digits.begins(*packet) for packet in packets] == [True] + [False] * 13


def test_an_event_whose_first_packets_were_lost_is_a_digit() -> None:
    assert Digits().begins(IS_END, 100, 60)


@pytest.mark.parametrize(("began_at_ms", "is_another"), [(199, False), (200, True), (5000, True)])
def test_a_digit_again_whose_first_packets_were_lost_is_a_digit_of_its_own(
    began_at_ms: int, is_another: bool
) -> None:
    digits = Digits()
    assert digits.begins(0, 100, 60)
    assert digits.begins(IS_UPDATE, began_at_ms, 80) is is_another
    assert not digits.begins(IS_UPDATE, began_at_ms, 100)


def test_an_event_that_the_library_calls_new_is_one_though_its_sender_forgot_the_time() -> None:
    digits = Digits()
    assert [digits.begins(0, 100, 60), digits.begins(0, 100, 60)] == [True, True]


def test_as_many_digits_as_a_keypad_sends_are_taken_for_ever() -> None:
    digits = Digits()
    assert not any(digits.is_too_fast(number * 80) for number in range(10_000))


def test_a_burst_is_taken_and_what_goes_beyond_it_is_not() -> None:
    digits = Digits()
    taken = [not digits.is_too_fast(1000) for _ in range(100)]
    assert taken == [True] * BURST + [False] * (100 - BURST)
    assert [digits.is_too_fast(1000 + round(1000 / MOST_PER_S)) for _ in range(2)] == [False, True]
