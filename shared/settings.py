"""The settings of a process: one frozen object, read from the environment in main and checked at boot."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared import sealing
from shared.errors import ConfigError
from shared.sealing import Keys


class Settings(BaseSettings):
    """Every environment variable Sluice reads is `SLUICE_` and a field's name in capitals. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", frozen=True, extra="ignore")

    config: Path = Path("sluice.yaml")
    database_url: str | None = None
    redis_url: str | None = None
    admin_key: SecretStr | None = None
    secrets_key: SecretStr | None = Field(
        None, description="keys that seal secrets in Postgres, the first for new ones"
    )
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    data_dir: Path = Path(".sluice")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    max_body_bytes: int = Field(64 * 2**20, gt=0, description="largest request body the front door reads")
    max_file_bytes: int = Field(200 * 2**20, gt=0, description="largest file that may be uploaded")
    max_file_lines: int = Field(50_000, gt=0, description="lines a file may have that a batch is made of")
    max_batch_requests: int = Field(50_000, gt=0)
    max_response_bytes: int = Field(32 * 2**20, gt=0, description="largest answer a worker reads from a provider")
    max_attempts: int = Field(5, gt=0, description="tries a job has before an error is final")
    worker_slots: int = Field(500, gt=0, description="calls one worker process has in flight at most")
    connect_timeout: float = Field(10.0, gt=0)
    job_timeout: float = Field(900.0, gt=0, description="longest a call may take, whatever its provider's timeout")
    sync_timeout: float = Field(600.0, gt=0, description="longest a synchronous request waits for its answer")
    lease: float = Field(10.0, gt=0, description="a process that is silent for so long has lost what it held")
    renewal: float = Field(3.0, gt=0, description="how often a worker renews its lease")
    shutdown_grace: float = Field(5.0, gt=0, description="how long running calls may finish after SIGTERM")
    sweep_interval: float = Field(1.0, gt=0, description="how often maintenance looks for what was lost")
    webhook_timeout: float = Field(20.0, gt=0)
    database_pool: int = Field(8, gt=0, description="connections to Postgres a process holds at most")

    @field_validator("secrets_key")
    @classmethod
    def _keys(cls, text: SecretStr | None) -> SecretStr | None:
        if text is None or not text.get_secret_value():
            return None
        try:
            sealing.keys(text.get_secret_value())
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return text

    @property
    def secrets_keys(self) -> Keys | None:
        """The keys that seal secrets, None where there are none."""
        return None if self.secrets_key is None else sealing.keys(self.secrets_key.get_secret_value())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lease <= 3 * self.renewal:
            raise ValueError(
                "SLUICE_LEASE must be more than three times SLUICE_RENEWAL, or one slow renewal loses jobs"
            )
        return self


def load(**overrides: object) -> Settings:
    """Read the environment. Raises ConfigError naming the variable."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"SLUICE_{str(fault['loc'][0]).upper()}: {fault['msg']}" if fault["loc"] else fault["msg"]
            for fault in error.errors()
        )
        raise ConfigError(f"environment: {faults}") from error
