"""What is wrong with a configuration is said at once, by line, without a value."""

from pathlib import Path

import pytest

from shared import config, providers
from shared.errors import ConfigError

UNSET = "the variable MISSING is not set; set it, or write ${MISSING:-default}"
NAME = "must be lower-case letters, digits, `-` and `_`, at most 63, the first no `-` or `_`"


def load(tmp_path: Path, text: str | bytes, **env: str) -> config.Config:
    path = tmp_path / "sluice.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load(path, env)


def faults(tmp_path: Path, text: str | bytes, **env: str) -> list[str]:
    """Return the lines of the error, without the directory."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **env)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.mark.parametrize("written", ["${OPENAI-KEY}", "${1A}", "${A", "${}"])
def test_what_only_looks_like_a_variable_is_a_fault(tmp_path: Path, written: str) -> None:
    (fault,) = faults(tmp_path, f"providers:\n  o: {{kind: openai, base_url: 'https://h/{written}'}}", A="x")
    assert fault.startswith("sluice.yaml:2: providers.o.base_url: `${` must begin ${NAME}")


def test_every_fault_is_named_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
providers:
  openai:
    kind: openai
    baseurl: https://h/v1
    keys:
      - {name: left-out, value: "${EMPTY:-}"}
      - name: main
        value: "${MISSING}"
        weight: 0
    timeout: soon
  Bad Name: {kind: simulated}
  other: {kind: openal, base_url: "ftp://h"}
models:
  fast: {targets: [opena/small]}
  slow: {targets: [nothing], strategie: cost}
  both: {targets: [openai/a, openai/a]}
webhooks:
  allow_http: maybe
  allow_http: false
  allow_private_networks: [10.0.0.1/8, 5]
limits: {}
"""
    assert faults(tmp_path, text) == [
        "sluice.yaml:4: providers.openai.baseurl: is not a key here; did you mean `base_url`?",
        f"sluice.yaml:8: providers.openai.keys[1].value: {UNSET}",
        "sluice.yaml:9: providers.openai.keys[1].weight: must be greater than 0",
        "sluice.yaml:10: providers.openai.timeout: must be a duration such as 120s, 2m or 120",
        f"sluice.yaml:11: providers.Bad Name: {NAME}",
        "sluice.yaml:12: providers.other.base_url: must be an http or https URL",
        "sluice.yaml:12: providers.other.kind: is not a kind of provider; did you mean `openai`?",
        "sluice.yaml:14: models.fast.targets[0]: names a provider that is not configured; did you mean `openai`?",
        "sluice.yaml:15: models.slow.strategie: is not a key here; did you mean `strategy`?",
        "sluice.yaml:15: models.slow.targets[0]: must be provider/model",
        "sluice.yaml:16: models.both.targets[1]: is there twice",
        "sluice.yaml:19: webhooks.allow_http: is there twice",
        "sluice.yaml:20: webhooks.allow_private_networks[0]: has bits set behind its prefix; did you mean 10.0.0.0/8?",
        "sluice.yaml:20: webhooks.allow_private_networks[1]: must be a network such as 10.0.0.0/8 or fd00::/8",
        (
            "sluice.yaml:21: limits: is not a key here; there are: providers, models, webhooks, tenants, usage, "
            "alerts, structured_output, files"
        ),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1: the file must be a mapping with `providers`"),
        ("- providers", "1: the file must be a mapping with `providers`"),
        ("models: {}", "1: providers: is required"),
        ("providers: {}", "1: providers: must not be empty"),
        ("providers: []", "1: providers: must be a mapping"),
        ("providers:\n  o:\n", "2: providers.o: must be a mapping"),
        ("providers:\n  o: {base_url: 'http://h'}", "2: providers.o.kind: is required"),
        ("providers:\n  o: {kind: openai, keys: {}}", "2: providers.o.keys: must be a list"),
        ("providers:\n  o: {kind: openai, timeout: 0}", "2: providers.o.timeout: must be greater than 0"),
        ("providers:\n  o: {kind: openai, timeout: true}", "2: providers.o.timeout: must be a duration"),
        ("providers:\n  o: {kind: openai, timeout: .inf}", "2: providers.o.timeout: must be less than or equal to"),
        ("providers:\n  o: {kind: openai, timeout: [1]}", "2: providers.o.timeout: must be a number"),
        ("providers:\n  o: {kind: openai, timeout: !x 1}", "2: providers.o.timeout: is not a value of its type"),
        ("providers:\n  o: {kind: openai, timeout: !!int x}", "2: providers.o.timeout: is not a value of its type"),
        ("providers:\n  o: {kind: openai, timeout: 2024-99-99}", "2: providers.o.timeout: is not a value of its type"),
        ("providers:\n  o: !!python/object:os.system {}", "2: providers.o: has a tag that is not supported"),
        ("providers:\n  o: {kind: openai, base_url: 'http://'}", "2: providers.o.base_url: must be an http"),
        ("providers:\n  o: {kind: openai, base_url: 'http://h:x/'}", "2: providers.o.base_url: must be an http"),
        (
            "providers:\n  o: {kind: openai, base_url: 'http://h/?a=b'}",
            "2: providers.o.base_url: must not have a query",
        ),
        (
            "providers:\n  o: {kind: openai, models: {m: {price: 3}}}",
            "2: providers.o.models.m.price: must be a mapping",
        ),
        ("providers:\n  o: {kind: openai, keys: [{name: 7, value: k}]}", "2: providers.o.keys[0].name: must be text"),
        ("providers:\n  o: {kind: openai, limits: {rpm: 0}}", "2: providers.o.limits.rpm: must be greater than 0"),
        ("providers:\n  o: {kind: openai, limits: {rps: 5}}", "2: providers.o.limits.rps: is not a key here"),
        ("providers: {o: {kind: simulated}}\nusage: {tags: [a, 'b=c']}", "2: usage.tags[1]: must be a metadata key of"),
        ("providers: {o: {kind: simulated}}\nusage: {tags: [a, b, a]}", "2: usage.tags: names `a` twice"),
        (
            "providers: {o: {kind: simulated}}\nusage: {tag: [a]}",
            "2: usage.tag: is not a key here; did you mean `tags`",
        ),
        (
            "providers: {o: {kind: simulated}}\nusage: {tags: [a, b, c, d, e, f, g, h, i, j, k]}",
            "2: usage.tags: must be at most 10",
        ),
        ("source: mine\nproviders: {o: {kind: simulated}}", "1: source: is not a key here"),
        ("providers: {o: {kind: simulated}}\nmodels: {m: {targets: []}}", "2: models.m.targets: must not be empty"),
        ("providers: {o: {kind: simulated}}\n? [a]\n: 1", "2: a key must be plain text"),
        ("providers: {o: {kind: openai, kind: openai}}", "1: providers.o.kind: is there twice"),
        ("providers:\n\t- x", "2: is not YAML: found character '\\t' that cannot start any token"),
        ("providers:\n  o: [", "2: is not YAML"),
        ("a: 1\n---\nb: 2", "2: is not YAML"),
        ("providers: *nowhere", "1: is not YAML"),
        (b"providers:\n  o: \xff", "2: the file is not UTF-8"),
        ("providers:\n  o: \x00", "2: holds a character that YAML does not allow"),
    ],
)
def test_a_fault_alone(tmp_path: Path, text: str | bytes, fault: str) -> None:
    (found,) = faults(tmp_path, text)
    assert found.startswith(f"sluice.yaml:{fault}")


@pytest.mark.parametrize("base_url", ["", ", base_url: null"])
def test_a_kind_without_an_address_of_its_own_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_url: str
) -> None:
    monkeypatch.setattr(providers.adapter("openai"), "DEFAULT_BASE_URL", "")
    text = f"providers:\n  s: {{kind: simulated}}\n  o: {{kind: openai{base_url}}}"
    (found,) = faults(tmp_path, text)
    assert found == ("sluice.yaml:3: providers.o.base_url: is required: the kind `openai` has no address of its own")
    load(tmp_path, "providers: {o: {kind: openai, base_url: 'https://h/v1'}}")


def test_a_kind_whose_packages_are_not_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("botocore")

    monkeypatch.setattr(providers, "adapter", missing)
    (found,) = faults(tmp_path, "providers:\n  o: {kind: openai}")
    assert found == "sluice.yaml:2: providers.o.kind: needs packages that are not installed; install sluice[openai]"


@pytest.mark.parametrize(
    ("model", "where", "what"),
    [
        ("{context_window: 0}", "context_window", "must be greater than 0"),
        ("{max_output: true}", "max_output", "must be a number"),
        ("{max_output: many}", "max_output", "must be a whole number"),
        ("{max_output: 1.5}", "max_output", "must be a whole number"),
        ("{max_output: [1]}", "max_output", "must be a whole number"),
        ("{tools: maybe}", "tools", "must be true or false"),
        ("{visoin: true}", "visoin", "is not a key here; did you mean `vision`?"),
        ("{price: {input: 1, output: 1, cache_wirte: 1}}", "price.cache_wirte", "is not a key here; did you mean"),
        ("{price: {input: 1, output: 1, reasoning: -1}}", "price.reasoning", "must be greater than or equal to 0"),
    ],
)
def test_faults_of_a_model(tmp_path: Path, model: str, where: str, what: str) -> None:
    (found,) = faults(tmp_path, f"providers:\n  o:\n    kind: openai\n    models:\n      m: {model}")
    assert found.startswith(f"sluice.yaml:5: providers.o.models.m.{where}: {what}")


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("{targets: [o/a], strategy: cheapest}", "3: strategy: must be 'cost', 'latency', 'capability', 'round"),
        ("{targets: [5]}", "3: targets[0]: must be provider/model, or a mapping with `target`"),
        ("{targets: [{target: p/a}]}", "3: targets[0].target: names a provider that is not configured"),
        ("{targets: [{weight: 1}]}", "3: targets[0].target: is required"),
        ("{targets: [{target: o/a, wieght: 1}]}", "3: targets[0].wieght: is not a key here; did you mean `weight`"),
        ("{targets: [{target: o/a, weight: 0}]}", "3: targets[0].weight: must be greater than 0"),
        ("{targets: [o/b, {target: o/a, canary: few}]}", "3: targets[1].canary: must be a percentage such as 5%"),
        ("{targets: [o/b, {target: o/a, canary: yes}]}", "3: targets[1].canary: must be a percentage such as 5%"),
        ("{targets: [o/b, {target: o/a, canary: 101}]}", "3: targets[1].canary: must be less than or equal to"),
        ("{targets: [{target: o/a, canary: 5%}]}", "3: targets: must hold a target that is no canary"),
        (
            "{targets: [o/b, {target: o/a, canary: 60}, {target: o/c, canary: 60}]}",
            "3: targets: has canaries for more than 100% of the jobs",
        ),
        ("{targets: [{target: o/a, when: {team: 5}}]}", "3: targets[0].when.team: must be text"),
        ("{targets: [{target: o/a, when: search}]}", "3: targets[0].when: must be a mapping"),
        ("{targets: [o/a, {target: o/a, weight: 2}]}", "3: targets[1]: is there twice"),
        ("\n    targets: [o/a]\n    fallbacks: [othr]", "5: fallbacks[0]: is neither a configured model nor"),
        (
            "{targets: [o/a], fallbacks: [othr]}",
            "3: fallbacks[0]: is neither a configured model nor provider/model; did you mean `other`?",
        ),
        ("{targets: [o/a], context_fallbacks: [p/x]}", "3: context_fallbacks[0]: names a provider that is not"),
        ("{targets: [o/a], content_fallbacks: [other, other]}", "3: content_fallbacks[1]: is there twice"),
        ("{targets: [o/a], fallbacks: [m]}", "3: fallbacks[0]: is this model itself"),
        ("{targets: [o/a], fallbacks: other}", "3: fallbacks: must be a list"),
    ],
)  # fmt: skip
def test_faults_of_a_name_for_callers(tmp_path: Path, model: str, fault: str) -> None:
    text = f"providers: {{o: {{kind: simulated}}}}\nmodels:\n  m: {model}\n  other: {{targets: [o/x]}}"
    (found,) = faults(tmp_path, text)
    line, _, rest = fault.partition(" ")
    assert found.startswith(f"sluice.yaml:{line} models.m.{rest}")


def test_fallbacks_that_go_in_circles_are_named_on_every_line_of_the_circle(tmp_path: Path) -> None:
    text = """\
providers: {o: {kind: simulated}}
models:
  a: {targets: [o/a], fallbacks: [b], context_fallbacks: [c]}
  b:
    targets: [o/b]
    fallbacks:
      - o/x
      - c
  c: {targets: [o/c], fallbacks: [a], context_fallbacks: [o/y]}
  d: {targets: [o/d], fallbacks: [a, b, c]}
"""
    assert faults(tmp_path, text) == [
        "sluice.yaml:3: models.a.fallbacks[0]: leads back to `a`; take one of them out",
        "sluice.yaml:8: models.b.fallbacks[1]: leads back to `b`; take one of them out",
        "sluice.yaml:9: models.c.fallbacks[0]: leads back to `c`; take one of them out",
    ]


@pytest.mark.parametrize(
    ("price", "where", "what"),
    [
        ("{input: 1, outptu: 2, output: 2}", "outptu", "is not a key here; did you mean `output`?"),
        ("{input: 1}", "output", "is required"),
        ("{input: cheap, output: 2}", "input", "must be a number"),
        ("{input: -1, output: 2}", "input", "must be greater than or equal to 0"),
    ],
)
def test_faults_of_a_price(tmp_path: Path, price: str, where: str, what: str) -> None:
    (found,) = faults(tmp_path, f"providers:\n  o:\n    kind: openai\n    models:\n      m: {{price: {price}}}")
    assert found == f"sluice.yaml:5: providers.o.models.m.price.{where}: {what}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "x: &a [" + "1," * 30 + "1]\n"
            + "".join(f"x{n}: &{after} [{','.join([f'*{before}'] * 30)}]\n"
                      for n, (before, after) in enumerate(zip("abcde", "bcdef", strict=True))),
            "values",
        ),
        ("x: &a {k: 1}\n" + "".join(
            f"x{n}: &{after} {{{','.join([f'k: *{before}'] * 30)}}}\n"
            for n, (before, after) in enumerate(zip("abcde", "bcdef", strict=True))
        ), "values"),
        ("providers: &a [*a]", "nests too deeply"),
        ("providers: &a {a: *a, b: *a}", "nests too deeply"),
        ("providers: " + "[" * 5000 + "]" * 5000, "nests too deeply"),
        ("providers: {o: {kind: openai}}\n" + "#" * 2**20, "the file is larger than 1048576 bytes"),
        ("x: [" + "1," * 30_000 + "]", "values"),
    ],
    ids=["lists of lists", "the same key again", "inside itself", "twice inside itself", "deep", "large", "many"],
)  # fmt: skip
def test_a_file_is_bounded(tmp_path: Path, text: str, fault: str) -> None:
    assert any(fault in one for one in faults(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "providers: {o: {kind: '${SECRET}'}}",
        "providers: {o: {kind: openai, base_url: '${SECRET}'}}",
        "providers: {o: {kind: openai, timeout: '${SECRET}'}}",
        "providers: {o: {kind: openai, models: '${SECRET}'}}",
        "providers: {o: {kind: openai, models: {m: {price: {input: '${SECRET}', output: 1}}}}}",
        "providers: {o: {kind: openai, keys: [{name: n, value: '${SECRET}', weight: '${SECRET}'}]}}",
        "providers: {o: {kind: openai, keys: ['${SECRET}']}}",
        "providers: {o: {kind: openai}}\nmodels: {m: {targets: ['${SECRET}']}}",
        "providers: {o: {kind: openai}}\nmodels: {m: {targets: ['${SECRET}/x']}}",
        "providers: {o: {kind: openai}}\nmodels: {m: {targets: [o/a], fallbacks: ['${SECRET}', '${SECRET}']}}",
        "providers: {o: {kind: openai}}\nmodels: {m: {strategy: '${SECRET}', targets: [{canary: '${SECRET}'}]}}",
        "providers: {o: {kind: openai}}\nwebhooks: {allow_http: '${SECRET}', allow_private_networks: ['${SECRET}']}",
        "providers: {o: {kind: openai}}\nfiles: {endpoint_url: '${SECRET}', bucket: '/${SECRET}'}",
    ],
)
def test_no_value_is_in_an_error(tmp_path: Path, text: str) -> None:
    secret = "hunter2hunter2"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, SECRET=secret)
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="directory"):
        config.load(tmp_path, {})
