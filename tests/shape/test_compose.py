"""compose.yaml starts what there is: its commands are the command line's, its services know each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from shared.cli import app
from shared.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "sluice"}


def expanded(text: str) -> str:
    """Return a value with `${NAME:-default}` as it is where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_part_of_the_gateway_is_there() -> None:
    started = {service["command"][0] for service in OURS.values()}
    assert started == {"migrate", "api", "worker", "deliver", "maintain", "simulate"}


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_sluice_takes(name: str) -> None:
    command, *arguments = (expanded(part) for part in OURS[name]["command"])
    found = typer.main.get_group(app).commands[command]
    found.make_context(command, arguments)  # raises a UsageError for what it does not take


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_exists_and_can_be_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        match how["condition"]:
            case "service_healthy":
                assert "healthcheck" in SERVICES[other]
            case "service_completed_successfully":
                assert SERVICES[other]["restart"] == "no"
            case condition:
                pytest.fail(condition)


def test_every_variable_is_one_that_sluice_reads() -> None:
    known = {f"SLUICE_{field.upper()}" for field in Settings.model_fields} | {"SLUICE_SIMULATED_URL", "OPENAI_API_KEY"}
    for service in OURS.values():
        assert service["environment"].keys() <= known


def test_addresses_name_services() -> None:
    for name in ("SLUICE_DATABASE_URL", "SLUICE_REDIS_URL", "SLUICE_SIMULATED_URL"):
        [host] = re.findall(r"(?:@|//)([a-z]+)(?::\d+)?/", OURS["api"]["environment"][name])
        assert host in SERVICES


def test_redis_never_evicts_and_named_volumes_are_declared() -> None:
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == COMPOSE["volumes"].keys()


def test_the_image_is_built_from_a_file_that_is_there_and_starts_sluice() -> None:
    assert {service["build"]["dockerfile"] for service in OURS.values()} == {"deploy/Dockerfile"}
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["sluice"]' in text
    for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / one).exists() for one in source.split())


def test_a_pool_has_the_time_to_give_back_its_jobs() -> None:
    assert int(OURS["worker"]["stop_grace_period"].removesuffix("s")) > Settings().shutdown_grace + 5
