"""`sluice config check`: validates a configuration, naming the line and the fix."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(help="The configuration file.", no_args_is_help=True)
    group.command()(check)
    app.add_typer(group, name="config")


def check(
    file: Annotated[Path | None, typer.Argument(help="default: SLUICE_CONFIG or sluice.yaml")] = None,
) -> None:
    """Validate a configuration."""
    from shared import config, settings
    from shared.errors import ConfigError

    try:
        path = file or settings.load().config
        if file is not None and not file.exists():
            sys.exit(f"{file}: there is no such file")
        found = config.load(path, os.environ)
    except ConfigError as error:
        sys.exit(str(error))
    print(f"good: {found.source}")
    for name, provider in found.providers.items():
        print(f"  provider {name}: {provider.kind}, {len(provider.keys)} key(s)")
    for name, model in found.models.items():
        chosen = f" (by {model.strategy})" if len(model.targets) > 1 else ""
        instead = f"; else {', '.join(model.fallbacks)}" if model.fallbacks else ""
        print(f"  model {name}: {', '.join(model.targets)}{chosen}{instead}")
