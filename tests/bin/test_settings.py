"""Settings: which source wins, and what is said of a setting that is wrong, unknown or missing."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from tq.admin.config import AdminSettings
from tq.bin.declaration import settings_of
from tq.bin.settings import PROGRAMS, config_file, effective, load
from tq.broker.config import BrokerSettings
from tq.core.errors import ConfigError
from tq.worker.config import WorkerSettings


def broker(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> BrokerSettings:
    return load("broker", BrokerSettings, flags or {}, environment or {}, file).settings


def written(folder: Path, text: str) -> Path:
    file = folder / "tq.yml"
    file.write_text(text)
    return file


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, "broker: {lease_ms: 11s, heartbeat_ms: 1100, queues_max: 11}")
    environment = {"TQ_LEASE_MS": "12s", "TQ_HEARTBEAT_MS": "1200"}
    flags = {"lease_ms": "13s"}

    loaded = load("broker", BrokerSettings, flags, environment, file)

    assert loaded.settings == BrokerSettings(lease_ms=13_000, heartbeat_ms=1_200, queues_max=11)
    assert loaded.sources["lease_ms"] == "--lease-ms"
    assert loaded.sources["heartbeat_ms"] == "TQ_HEARTBEAT_MS"
    assert loaded.sources["queues_max"] == f"broker.queues_max in {file}"
    assert loaded.sources["listen"] == "default"


def test_without_a_word_from_anywhere_the_defaults_hold() -> None:
    assert broker() == BrokerSettings()


def test_a_flag_takes_back_what_the_environment_turned_on() -> None:
    assert broker({"insecure": False}, {"TQ_INSECURE": "1"}).insecure is False


@pytest.mark.parametrize("text, value", [("true", True), ("YES", True), ("1", True), ("off", False), ("0", False)])
def test_the_environment_spells_yes_and_no_in_the_usual_ways(text: str, value: bool) -> None:
    assert broker(environment={"TQ_INSECURE": text}).insecure is value


def test_an_empty_variable_and_an_empty_line_of_the_file_say_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, "broker:\n  data:\nworker:\n")

    assert broker(environment={"TQ_DATA": ""}, file=file) == BrokerSettings()


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert broker(file=written(tmp_path, "# nothing yet\n")) == BrokerSettings()


def test_a_path_is_a_path_and_a_word_beside_a_number_stays_a_word() -> None:
    worker = load("worker", WorkerSettings, {"app": "mail"}, {"TQ_CONCURRENCY": "auto", "TQ_PREFETCH": "0"})

    assert broker({"data": "somewhere"}).data == Path("somewhere")
    assert (worker.settings.concurrency, worker.settings.prefetch) == ("auto", 0)


def test_the_other_programs_variables_and_sections_are_left_to_them(tmp_path: Path) -> None:
    file = written(tmp_path, "worker: {concurrency: 3}\nbroker: {queues_max: 5}")

    settings = broker(environment={"TQ_APP": "mail:app", "TQ_URL": "tq://x:1", "HOME": "/"}, file=file)

    assert settings == BrokerSettings(queues_max=5)


@pytest.mark.parametrize(
    "variable",
    [
        "TQ_SERVICE_HOST",
        "TQ_SERVICE_PORT",
        "TQ_PORT",
        "TQ_PORT_7766_TCP",
        "TQ_PORT_7766_TCP_ADDR",
        "TQ_BROKER_SERVICE_PORT_WIRE",
    ],
)
def test_what_kubernetes_says_of_a_service_called_tq_is_no_setting(variable: str) -> None:
    assert broker(environment={variable: "tcp://10.0.0.1:7766"}) == BrokerSettings()


@pytest.mark.parametrize(
    "flags, environment, text",
    [
        ({"lease_ms": "1"}, {}, "--lease-ms must be 500ms to 1h (in ms, or such as 10s, 5m, 30d); got '1'"),
        ({"lease_ms": "soon"}, {}, "--lease-ms must be 500ms to 1h"),
        ({"lease_ms": "10KiB"}, {}, "got '10KiB'"),
        ({"queues_max": "0"}, {}, "--queues-max must be 1 to 10000000; got '0'"),
        ({}, {"TQ_DURABILITY": "fsync"}, "TQ_DURABILITY must be sync, interval or none; got 'fsync'"),
        ({}, {"TQ_INSECURE": "maybe"}, "TQ_INSECURE must be true or false; got 'maybe'"),
        ({"data": ""}, {}, "--data must be text; got ''"),
    ],
)
def test_a_bad_value_is_told_with_its_source_its_bounds_and_itself(
    flags: dict[str, object], environment: dict[str, str], text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        broker(flags, environment)

    assert text in str(caught.value)


@pytest.mark.parametrize("value", ["[1]", "1.5", "true", "{a: 1}"])
def test_a_number_in_the_file_is_a_number(value: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"broker: {{lease_ms: {value}}}")

    with pytest.raises(ConfigError, match=r"broker\.lease_ms in .*tq\.yml must be 500ms to 1h"):
        broker(file=file)


@pytest.mark.parametrize(
    "setting, value",
    [("data", "5"), ("insecure", "[]"), ("durability", "3"), ("listen", "7766"), ("insecure", "2")],
)
def test_text_in_the_file_is_text(setting: str, value: str, tmp_path: Path) -> None:
    file = written(tmp_path, f"broker: {{{setting}: {value}}}")

    with pytest.raises(ConfigError, match=rf"broker\.{setting} in .*must be"):
        broker(file=file)


def test_an_unknown_variable_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"environment variable TQ_LEASE is no setting; did you mean TQ_LEASE_MS\?"):
        broker(environment={"TQ_LEASE": "3"})


def test_an_unknown_name_in_any_section_of_the_file_is_an_error_that_names_the_nearest(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, "worker: {concurency: 3}")

    with pytest.raises(ConfigError, match=r"worker\.concurency is no setting; did you mean concurrency\?"):
        broker(file=file)


def test_an_unknown_section_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    file = written(tmp_path, "workers: {concurrency: 3}")

    with pytest.raises(ConfigError, match=r"'workers' is no section; did you mean worker\?"):
        broker(file=file)


def test_a_name_that_is_like_none_gets_the_list(tmp_path: Path) -> None:
    file = written(tmp_path, "zzz: {}")

    with pytest.raises(ConfigError, match="there are admin, broker, worker"):
        broker(file=file)


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("broker: [", "is not YAML"),
        ("- broker", "must hold sections"),
        ("broker: 3", "broker must hold settings"),
        ("broker: [data]", "broker must hold settings"),
        ("3: {}", "3 is no section"),
        ("broker: &b {data: *b}", "must be text"),
        ("broker: {[data]: x}", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("broker: {queues_max: 1, queues_max: 2}", "line 1: 'queues_max' is there a second time"),
        ("broker: {}\nworker: {}\nbroker: {}", "line 3: 'broker' is there a second time"),
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        broker(file=written(tmp_path, text))


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the settings file .*nowhere\.yml cannot be read"):
        broker(file=tmp_path / "nowhere.yml")


def test_a_contradiction_names_where_its_sides_come_from() -> None:
    with pytest.raises(ConfigError, match=r"at least twice heartbeat_ms .*heartbeat_ms is from TQ_HEARTBEAT_MS"):
        broker(environment={"TQ_HEARTBEAT_MS": "9s"})


def test_a_setting_that_is_refused_as_a_whole_is_told_with_its_source() -> None:
    with pytest.raises(ConfigError, match=r"starts with tq://.*got 'http://x' \(url is from TQ_URL\)"):
        load("admin", AdminSettings, {}, {"TQ_URL": "http://x"})


def test_a_missing_setting_is_asked_for_by_all_its_names() -> None:
    with pytest.raises(ConfigError, match=r"-A or --app is missing .*TQ_APP"):
        load("worker", WorkerSettings, {}, {})


def test_the_flag_names_the_file_before_the_variable_does() -> None:
    environment = {"TQ_CONFIG": "b.yml"}

    assert config_file("a.yml", environment) == Path("a.yml")
    assert config_file(None, environment) == Path("b.yml")
    assert config_file(None, {}) is None


def test_a_variable_means_the_same_kind_of_thing_to_every_program() -> None:
    kinds: dict[str, set[object]] = {}
    for struct in PROGRAMS.values():
        for setting in settings_of(struct).values():
            kinds.setdefault(setting.variable, set()).add((setting.kind, setting.words))

    assert not {variable: found for variable, found in kinds.items() if len(found) > 1}


def test_the_struct_is_what_the_program_gets() -> None:
    loaded = load("worker", WorkerSettings, {"app": "mail"}, {})

    assert msgspec.structs.asdict(loaded.settings)["app"] == "mail"
    assert list(loaded.sources) == list(WorkerSettings.__struct_fields__)


def test_the_settings_in_effect_are_told_with_their_sources() -> None:
    loaded = load("broker", BrokerSettings, {"lease_ms": "20000"}, {"TQ_LISTEN": "[::1]:1"})

    lines = effective("broker", loaded).splitlines()

    assert lines[0] == "broker:"
    assert "  lease_ms: 20s  # from --lease-ms" in lines
    assert "  listen: '[::1]:1'  # from TQ_LISTEN" in lines
    assert "  insecure: false  # default" in lines


def test_the_settings_in_effect_are_a_settings_file(tmp_path: Path) -> None:
    flags = {"app": "mail:app", "name": "yes", "concurrency": "5", "queues": "a:2,b"}
    loaded = load("worker", WorkerSettings, flags, {})
    file = written(tmp_path, effective("worker", loaded))

    assert load("worker", WorkerSettings, {}, {}, file).settings == loaded.settings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('broker: {data: "a\\0b"}', "must be text without a NUL character; got 'a\\\\x00b'"),
        ("[" * 20_000, "is nested too deep"),
        ("broker: {queues_max: 2001-13-41}", "is not YAML"),
    ],
)
def test_a_file_that_nobody_should_write_is_refused_with_its_reason(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        broker(file=written(tmp_path, text))


@pytest.mark.parametrize("line", ["drain_ms: 1:30", "connections_max: 1:30", "drain_ms: 1:30.5"])
def test_a_number_in_sixties_is_refused(line: str, tmp_path: Path) -> None:
    name, _, value = line.partition(": ")

    with pytest.raises(ConfigError, match=rf"broker.{name} in .* must be .*; got '{value}'"):
        broker(file=written(tmp_path, f"broker:\n  {line}\n"))


@pytest.mark.parametrize("value", ["010", "-010", "019", "00"])
def test_a_number_with_zeros_before_it_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"line 2: connections_max: {value} may be meant to the base of eight"):
        broker(file=written(tmp_path, f"broker:\n  connections_max: {value}\n"))


def test_a_range_needs_no_quotes(tmp_path: Path) -> None:
    file = written(tmp_path, "worker: {app: shop, pool: process, autoscale: 2:8}")

    assert load("worker", WorkerSettings, {}, {}, file).settings.autoscale == "2:8"


@pytest.mark.parametrize(("value", "number"), [("1_000", 1_000), ("0x10", 16), ("+12", 12), ("12", 12)])
def test_other_numbers_are_as_in_yaml(value: str, number: int, tmp_path: Path) -> None:
    assert broker(file=written(tmp_path, f"broker: {{connections_max: {value}}}")).connections_max == number


def test_data_at_a_path_that_is_no_utf_8_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match=r"data must be a path that UTF-8 can encode; got 'a\\udcff' \(data is from"):
        load("broker", BrokerSettings, {"data": "a\udcff"}, {}, None)

    assert broker({"data": "a\udcff", "store": "memory"}).data == Path("a\udcff")
