"""Which of several targets a job gets, and where it may go from there."""

import random
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from shared import ids
from shared.candidates import ANY, Candidate, Preferences, Wanted, preferences
from shared.choice import Choice, Group, Groups, Strategy, choose, reason
from shared.errors import Fault
from shared.routing import Route, Target

JOB = Wanted(UUID(int=1))
CANNOT = (Fault("body.tools", "the model cannot call tools", "unsupported_parameter"),)


@dataclass(frozen=True)
class Lane:
    waiting: int = 0
    in_motion: int = 0
    pace: float = 1.0
    latency: float | None = None
    eta: float | None = 0.0
    healthy: bool = True


def one(name: str, **known: Any) -> Candidate:
    """Return a candidate; its provider is the part of its name before the slash."""
    provider, _, model = name.rpartition("/")
    return Candidate(Target(provider or "p", model), known.pop("kind", "openai"), model="asked", **known)


def fallback(name: str, *, model: str = "other", **known: Any) -> Candidate:
    return replace(one(name, **known), model=model, fallback=True)


def run(*candidates: Candidate, strategy: Strategy = "order", wanted: Wanted = JOB, **chains: Any) -> Choice:
    groups = Groups(Group(strategy, candidates), **{name: groups_of(chain) for name, chain in chains.items()})
    found = choose(groups, wanted, random.Random(7))
    assert isinstance(found, Choice), found
    return found


def groups_of(chain: list[list[Candidate]]) -> list[Group]:
    return [Group("order", candidates) for candidates in chain]


def faults(*candidates: Candidate, wanted: Wanted = JOB, **chains: Any) -> list[Fault]:
    groups = Groups(Group("order", candidates), **{name: groups_of(chain) for name, chain in chains.items()})
    found = choose(groups, wanted, random.Random(7))
    assert isinstance(found, list), found
    return found


def order(choice: Choice) -> str:
    """Return the models in the order of the choice, by their letters."""
    return "".join(ranked.candidate.target.model for ranked in choice.ranked)


def letters(chain: tuple[Target, ...]) -> str:
    return "".join(target.model for target in chain)


def wishing(**wishes: Any) -> Wanted:
    found = preferences(wishes)
    assert isinstance(found, Preferences), found
    return replace(JOB, preferences=found)


# ------------------------------------------------------------------ strategies


@pytest.mark.parametrize(
    ("strategy", "known", "expected"),
    [
        ("order", {"a": {"cost": 9}, "b": {"cost": 1}}, "ab"),
        ("cost", {"a": {"cost": 9}, "b": {"cost": 1}, "c": {}, "d": {"cost": 0}}, "dbac"),
        ("latency", {"a": {"lane": Lane(latency=3.0)}, "b": {"lane": Lane(latency=1.0, eta=1.0)}}, "ba"),
        ("latency", {"a": {"lane": Lane(latency=0.1, eta=None)}, "b": {"lane": Lane(latency=9.0)}}, "ba"),
        ("latency", {"a": {"lane": Lane(latency=0.1)}, "b": {"lane": Lane()}}, "ba"),
        ("latency", {"a": {}, "b": {}}, "ab"),
        ("least_busy", {"a": {"lane": Lane(waiting=2)}, "b": {"lane": Lane(in_motion=1)}}, "ba"),
        ("least_busy", {"a": {"lane": Lane(1, 1)}, "b": {"lane": Lane(0, 3)}, "c": {"lane": Lane(1, 0)}}, "cab"),
        ("capability", {"a": {"window": 10, "abilities": 9}, "b": {"window": 20}, "c": {}}, "bac"),
        ("capability", {"a": {"window": 10, "abilities": 1}, "b": {"window": 10, "abilities": 2}}, "ba"),
        ("capability", {"a": {"window": 10, "most_output": 1}, "b": {"window": 10, "most_output": 2}}, "ba"),
    ],
)
def test_strategies(strategy: Strategy, known: dict[str, dict[str, Any]], expected: str) -> None:
    assert order(run(*(one(name, **facts) for name, facts in known.items()), strategy=strategy)) == expected


def test_by_turns_each_comes_first_in_turn_and_the_next_ones_follow() -> None:
    def turn(number: int) -> str:
        return order(run(one("a"), one("b"), one("c"), strategy="round_robin", wanted=replace(JOB, turn=number)))

    assert [turn(number) for number in range(4)] == ["abc", "bca", "cab", "abc"]


def test_turns_are_taken_among_those_that_can() -> None:
    firsts = [
        order(run(one("a"), one("b", faults=CANNOT), one("c"), strategy="round_robin", wanted=replace(JOB, turn=turn)))
        for turn in range(4)
    ]
    assert firsts == ["ac", "ca", "ac", "ca"]


def test_by_weight_each_comes_first_as_often_as_it_weighs() -> None:
    rng, firsts = random.Random(1), []
    groups = Groups(Group("weighted", [one("a"), one("b", weight=3), one("c", weight=0.001)]))
    for _ in range(4_000):
        found = choose(groups, JOB, rng)
        assert isinstance(found, Choice)
        firsts.append(found.target.model)
    assert 0.72 < firsts.count("b") / len(firsts) < 0.78
    assert 0.22 < firsts.count("a") / len(firsts) < 0.28


def test_the_same_draw_for_the_same_seed() -> None:
    drawn = {order(run(*map(one, "abcdef"), strategy="weighted")) for _ in range(5)}
    assert len(drawn) == 1


@pytest.mark.parametrize("strategy", ["order", "cost", "round_robin"])
def test_who_is_not_well_comes_last(strategy: Strategy) -> None:
    ill = Lane(healthy=False)
    choice = run(one("a", lane=ill, cost=1), one("b", cost=2), strategy=strategy, general=[[fallback("c", lane=ill)]])
    assert order(choice) == "bac"
    assert order(run(one("a", lane=ill), general=[[fallback("b", lane=Lane())]])) == "ba"
    assert order(run(one("a", lane=ill), one("b", lane=ill))) == "ab"


# ------------------------------------------------------------------ filters


def test_who_cannot_is_left_out_and_says_why() -> None:
    choice = run(one("a", faults=CANNOT), one("b"))
    assert (order(choice), choice.target.model, choice.route) == ("b", "b", Route())
    assert [(str(out.candidate.target), out.why) for out in choice.left_out] == [
        ("p/a", "body.tools: the model cannot call tools")
    ]


def test_where_nobody_can_the_faults_are_those_of_the_first() -> None:
    other = (Fault("body.seed", "is not supported", "unsupported_parameter"),)
    assert faults(one("a", faults=CANNOT), one("b", faults=other)) == list(CANNOT)
    assert faults(one("a", faults=CANNOT), general=[[fallback("b", faults=other)]]) == list(CANNOT)


def test_a_fallback_takes_what_none_of_the_models_own_targets_can() -> None:
    choice = run(one("a", faults=CANNOT), general=[[fallback("b")], [fallback("c")]], context=[[fallback("d")]])
    assert order(choice) == "bc"
    assert choice.route == Route((Target("p", "c"),), (Target("p", "d"),))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (100, "ab"),
        (149, "ab"),
        (151, "b"),
        (1_500, "b"),
        (1_501, "ab"),
    ],  # an estimate: far too long for all, it is tried
)
def test_a_prompt_that_is_far_too_long_leaves_a_target_out(tokens: int, expected: str) -> None:
    choice = run(one("a", window=100), one("b", window=1_000), wanted=replace(JOB, input=tokens))
    assert order(choice) == expected
    assert [letter for letter in "ab" if letter not in expected] == [
        out.candidate.target.model for out in choice.left_out
    ]


def test_who_has_no_known_window_takes_any_prompt() -> None:
    assert order(run(one("a", window=100), one("b"), wanted=replace(JOB, input=10**6))) == "b"


def test_a_prompt_too_long_for_all_goes_straight_to_the_long_ones() -> None:
    own, general, long = one("a", window=100), [[fallback("g", window=100)]], [[fallback("l", window=9_000)]]
    choice = run(own, general=general, context=long, wanted=replace(JOB, input=1_000))
    assert (order(choice), choice.left_out[-1].why) == ("l", "its window of 100 tokens is too small for about 1000")
    assert order(run(own, general=general, context=long, wanted=replace(JOB, input=140))) == "ag"
    assert order(run(own, general=general, context=long, wanted=replace(JOB, input=10_000_000))) == "a"
    only_general = run(own, general=[[fallback("g", window=9_000)]], wanted=replace(JOB, input=1_000))
    assert order(only_general) == "g"


def test_the_long_ones_are_for_long_prompts_only() -> None:
    assert faults(one("a", faults=CANNOT), context=[[fallback("l")]]) == list(CANNOT)


def test_who_answers_too_shortly_is_left_out_where_another_does_not() -> None:
    short, ample = one("a", most_output=100), one("b", most_output=1_000)
    wanted = replace(JOB, output=500)
    assert order(run(short, ample, wanted=wanted)) == "b"
    assert order(run(short, wanted=wanted)) == "a"
    assert order(run(short, one("c"), wanted=replace(JOB, output=100))) == "ac"


# ------------------------------------------------------------------ when, canary


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"team": "search", "tags": "eu"}, "bca"),
        ({"team": "search", "tags": "us, eu,batch", "more": "x"}, "bca"),
        ({"team": "search", "tags": "eu,batch"}, "bca"),
        ({"team": "search"}, "ca"),
        ({"team": "search", "tags": "europe"}, "ca"),
        ({"team": "ads", "tags": "eu"}, "a"),
        ({}, "a"),
    ],
)
def test_when(metadata: dict[str, str], expected: str) -> None:
    when = {"team": "search", "tags": "eu"}
    choice = run(
        one("a"), one("b", when=when), one("c", when={"team": "search"}), wanted=replace(JOB, metadata=metadata)
    )
    assert order(choice) == expected


def test_a_job_that_no_when_fits_is_refused() -> None:
    (fault,) = faults(one("a", when={"team": "search"}), wanted=replace(JOB, metadata={"team": "ads"}))
    assert (fault.param, fault.code) == ("metadata", "invalid_request")


def test_a_canary_gets_its_share_of_jobs_by_their_ids() -> None:
    groups = [one("a"), one("b", canary=5.0), one("c", canary=20.0)]
    jobs = [replace(JOB, id=ids.new_id()) for _ in range(8_000)]
    found = [order(run(*groups, wanted=job)) for job in jobs]
    assert set(found) == {"abc", "bac", "cab"}  # who was not drawn for one goes there last
    assert 0.035 < found.count("bac") / len(found) < 0.065
    assert 0.18 < found.count("cab") / len(found) < 0.22
    assert [order(run(*groups, wanted=job)) for job in jobs[:100]] == found[:100]


def test_a_canary_of_all_jobs_gets_them_all() -> None:
    for _ in range(50):
        assert order(run(one("a"), one("b", canary=100.0), wanted=replace(JOB, id=ids.new_id()))) == "ba"


# ------------------------------------------------------------------ preferences


ABC = (
    one("x/a", kind="openai", cost=3, prices=(3.0, 3.0), lane=Lane(pace=1, latency=1)),
    one("y/b", kind="anthropic", cost=2, prices=(2.0, 9.0), lane=Lane(pace=9, latency=3)),
    one("z/c", kind="openai", cost=1, prices=(1.0, None), lane=Lane(pace=5, latency=2)),
)


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, "abc"),
        ({"order": ["z", "y"]}, "cba"),
        ({"order": ["anthropic"]}, "bac"),
        ({"order": ["z/c", "nobody"]}, "cab"),
        ({"only": ["openai"]}, "ac"),
        ({"only": ["y", "z/c"]}, "bc"),
        ({"ignore": ["x"]}, "bc"),
        ({"ignore": ["openai", "nobody"]}, "b"),
        ({"only": ["openai"], "ignore": ["x/a"]}, "c"),
        ({"max_price": {"prompt": 2.5}}, "bc"),
        ({"max_price": {"completion": "3"}}, "a"),
        ({"max_price": {"prompt": 3, "completion": 9}}, "ab"),
        ({"sort": "price"}, "cba"),
        ({"sort": "latency"}, "acb"),
        ({"sort": "throughput"}, "bca"),
        ({"order": ["x"], "sort": "price"}, "acb"),
        ({"allow_fallbacks": True, "order": None}, "abc"),
    ],
)
def test_preferences(wishes: dict[str, Any], expected: str) -> None:
    choice = run(*ABC, wanted=wishing(**wishes))
    assert order(choice) == expected
    assert choice.route is not None
    assert letters(choice.route.general) == expected[1:]


def test_without_fallbacks_there_is_one_target_and_no_other() -> None:
    chain = [[fallback("d")]]
    choice = run(*ABC, general=chain, context=chain, content=chain, wanted=wishing(allow_fallbacks=False, order=["y"]))
    assert (choice.target.model, choice.route) == ("b", None)
    assert faults(one("a", faults=CANNOT), general=chain, wanted=wishing(allow_fallbacks=False)) == list(CANNOT)


def test_preferences_hold_for_the_fallbacks_too() -> None:
    general = [[fallback("x/d"), fallback("y/e", kind="other")]]
    assert order(run(*ABC, general=general, wanted=wishing(only=["y"]))) == "be"
    assert order(run(*ABC, general=general, wanted=wishing(only=["other"]))) == "e"


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({"only": ["nobody"]}, "body.provider.only"),
        ({"ignore": ["x", "y", "z"]}, "body.provider.ignore"),
        ({"max_price": {"prompt": 0.5}}, "body.provider.max_price"),
    ],
)
def test_preferences_that_leave_nobody_are_a_fault(wishes: dict[str, Any], param: str) -> None:
    (fault,) = faults(*ABC, wanted=wishing(**wishes))
    assert fault.param == param
    assert "x/a" in fault.message


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ([], ["body.provider"]),
        ("openai", ["body.provider"]),
        ({"order": "openai"}, ["body.provider.order"]),
        ({"only": [1]}, ["body.provider.only[0]"]),
        ({"ignored": []}, ["body.provider.ignored"]),
        ({"sort": "cheap", "allow_fallbacks": "no"}, ["body.provider.sort", "body.provider.allow_fallbacks"]),
        ({"max_price": 3}, ["body.provider.max_price"]),
        ({"max_price": {"prompt": -1}}, ["body.provider.max_price.prompt"]),
        ({"max_price": {"request": 1}}, ["body.provider.max_price.request"]),
        ({"max_price": {"completion": True}}, ["body.provider.max_price.completion"]),
    ],
)  # fmt: skip
def test_what_are_no_preferences(given: object, params: list[str]) -> None:
    found = preferences(given)
    assert isinstance(found, list)
    assert [fault.param for fault in found] == params


def test_no_preferences_are_none() -> None:
    assert preferences(None) is ANY


# ------------------------------------------------------------------ chains


def test_chains_hold_what_is_left_in_order_each_target_once() -> None:
    choice = run(
        one("a", window=100),
        one("b", window=50),
        general=[[fallback("c"), fallback("a")], [fallback("d", faults=CANNOT), fallback("e")]],
        context=[[fallback("l")], [fallback("a"), fallback("m")]],
        content=[[fallback("n"), fallback("b")]],
    )
    assert choice.route is not None
    assert (choice.target.model, letters(choice.route.general)) == ("a", "bce")
    assert [ranked.candidate.fallback for ranked in choice.ranked] == [False, False, True, True]
    assert (letters(choice.route.context), letters(choice.route.content)) == ("lm", "nb")


def test_without_long_ones_of_its_own_a_job_may_go_where_the_window_is_larger() -> None:
    general = [[fallback("c", window=200), fallback("d"), fallback("e", window=100)]]
    choice = run(one("a", window=100), one("b", window=101), general=general)
    assert choice.route is not None
    assert (letters(choice.route.general), letters(choice.route.context)) == ("bcde", "bc")
    unknown = run(one("a"), general=general)
    assert unknown.route is not None
    assert letters(unknown.route.context) == ""


def test_a_lone_target_has_nowhere_else_to_go() -> None:
    assert run(one("a")).route == Route()


# ------------------------------------------------------------------ reasons


def test_each_place_has_its_reason() -> None:
    ill, when = Lane(healthy=False), {"team": "a"}

    def reasons(choice: Choice) -> list[str]:
        return [reason(choice.ranked, index) for index in range(len(choice.ranked))]

    assert reasons(run(one("a"))) == ["the only target that can run it"]
    assert reasons(run(one("a"), one("b"))) == ["listed first", "listed later"]
    assert reasons(run(one("a", cost=2), one("b", cost=1), strategy="cost")) == ["first by cost", "behind by cost"]
    assert reasons(run(one("a", lane=ill), one("b"), general=[[fallback("c")]])) == [
        "the only target of its own that can run it",
        "a fallback, by `other`",
        "its circuit is open, or its keys are refused",
    ]
    assert reasons(run(*ABC, wanted=wishing(order=["y"])))[:2] == [
        "first in the caller's order",
        "later in the caller's order",
    ]
    assert reasons(run(*ABC, wanted=wishing(sort="price")))[0] == "first by the caller's sort, price"
    matched = run(one("a"), one("b", when=when), wanted=replace(JOB, metadata=when))
    assert reasons(matched) == ["the job's metadata match its `when`", "the job's metadata match another's `when`"]
