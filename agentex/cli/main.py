"""The command line, `agentex`. Heavy imports stand inside the commands: `agentex --help` has to be quick."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from pydantic import ValidationError

    from agentex.settings import Settings

WRONG_SETTING = 2
NOT_WELL = 1
app = typer.Typer(
    help="Starts agent runs on a schedule, on an event or on demand, and can always say what ran.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def serve() -> None:
    """Serve the API on AGENTEX_HOST:AGENTEX_PORT."""
    settings = _settings()
    from agentex.app import serve as serve_api

    serve_api(settings)


@app.command()
def worker() -> None:
    """Run a worker: opens and delivers what is due."""
    settings = _settings()
    from agentex.worker import run

    run(settings)


@app.command()
def migrate() -> None:
    """Bring the database of AGENTEX_DATABASE_URL to the newest schema."""
    settings = _settings()
    from agentex.database import migrate as migrate_database

    migrate_database(settings)


@app.command()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a line each.")] = False,
) -> None:
    """Say what is reachable, what is missing and what to do. Writes nothing; exits 1 unless all is well."""
    settings = _settings()
    import asyncio

    from agentex.check import check as check_all

    report = asyncio.run(check_all(settings))
    lines = [report.model_dump_json(indent=2)] if as_json else [one.line for one in report.checks]
    _print_and_leave(lines, 0 if report.ok else NOT_WELL)


keys = typer.Typer(help="API keys, for AGENTEX_AUTH=api_keys and agents.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("create")
def create_key(
    *,
    admin: Annotated[bool, typer.Option("--admin", help="A service account that may do everything.")] = False,
    agent: Annotated[str | None, typer.Option(help="The agent of this name: its AGENT_API_KEY.")] = None,
    user: Annotated[str | None, typer.Option(help="The user of this id.")] = None,
    service_account: Annotated[str | None, typer.Option(help="The service account of this id.")] = None,
    role: Annotated[
        str | None, typer.Option(help="admin, operator, editor or viewer; none: a guest.")
    ] = None,
    account: Annotated[str, typer.Option(help="The account (tenant) that it belongs to.")] = "default",
    name: Annotated[str, typer.Option(help="What the key is called in lists.")] = "from the command line",
    scope: Annotated[
        list[str] | None, typer.Option(help="Limits the key, e.g. task.read; repeatable.")
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Ends after so many days.")
    ] = None,
) -> None:
    """Make a key and print it: once, for only its hash is kept. Straight in AGENTEX_DATABASE_URL.

    The first key of all is made so: `agentex keys create --admin`.
    """
    settings = _settings()
    from agentex.auth.rules import Role
    from agentex.cli.keys import Holder, Limits, create
    from agentex.errors import AgentexError

    if role is not None and role not in set(Role) - {Role.AGENT}:
        raise typer.BadParameter(
            f"{role!r} is no role: give admin, operator, editor or viewer", param_hint="role"
        )
    if admin:
        role, service_account = Role.ADMIN, service_account if agent or user else service_account or "admin"
    holder = Holder(account, Role(role) if role else None, agent, user, service_account)
    try:
        print(create(settings, holder, name, Limits(scope, expires_days)))
    except AgentexError as error:
        typer.echo(error.message, err=True)
        raise typer.Exit(WRONG_SETTING) from None


@app.command()
def dev(
    data_dir: Annotated[Path, typer.Option(help="Data and logs of the stack.")] = Path(".agentex"),
    agents: Annotated[bool, typer.Option("--agents/--no-agents", help="Start the two demo agents.")] = True,
    reset: Annotated[
        bool,
        typer.Option(
            "--reset", help="Remove the embedded Postgres' data and the logs first, without asking."
        ),
    ] = False,
) -> None:
    """Start everything on this machine: Postgres, Temporal, Redis, API, worker and two demo agents.

    With AGENTEX_DATABASE_URL (Postgres 15 to 18), AGENTEX_TEMPORAL_ADDRESS or
    AGENTEX_REDIS_URL set, that server is used and none is embedded. Redis
    carries agents' token deltas; all else works without. AGENTEX_PORT (5003) is the
    API's port, 0 takes any; a second stack needs another port and another
    --data-dir.

    Each part has a log in DATA_DIR/logs. A part that crashes is started again
    after 1, 2, 4 … 30 s; one that crashes during the start ends the stack.
    Ctrl-C stops everything, a second one at once.
    """
    with _wrong_settings_named():
        from agentex.dev.stack import Options, run

        code = run(Options(data_dir, agents=agents, reset=reset))
    raise typer.Exit(code)


@app.command()
def openapi(
    output: Annotated[Path | None, typer.Option(help="Write it to this file instead.")] = None,
) -> None:
    """Print the API's OpenAPI document (YAML)."""
    from agentex.app import openapi_yaml

    if output is None:
        print(openapi_yaml(), end="")
    else:
        output.write_text(openapi_yaml(), encoding="utf-8")


def _print_and_leave(lines: Sequence[str], code: int) -> NoReturn:
    """Not by an exit of the interpreter's: temporalio's threads abort one now and then (sdk-python#300)."""
    # Whoever reads may have read enough.
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(lines), flush=True)
    os._exit(code)


def _settings() -> Settings:
    with _wrong_settings_named():
        from agentex.settings import Settings

        return Settings()


@contextlib.contextmanager
def _wrong_settings_named() -> Generator[None]:
    """One line per wrong setting on stderr, and exit code 2."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        for line in describe_wrong_settings(error):
            typer.echo(line, err=True)
        raise typer.Exit(WRONG_SETTING) from None


def describe_wrong_settings(error: ValidationError) -> list[str]:
    """`AGENTEX_PORT is 'abc': Input should be a valid integer, …`, one line per setting."""
    from agentex.settings import Settings

    prefix = str(Settings.model_config.get("env_prefix", ""))
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_context=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        variable = field if field.isupper() else f"{prefix}{field}".upper()
        reason = problem["msg"].removeprefix("Value error, ")
        if not field:
            # About several settings: the reason names them, and the input would be all there are.
            lines.append(reason)
            continue
        shown = f"{variable} is {'***' if _is_secret(field) else repr(problem['input'])}"
        lines.append(reason if reason.startswith(shown) else f"{shown}: {reason}")
    return lines


def _is_secret(field: str) -> bool:
    from agentex.settings import Settings

    known = Settings.model_fields.get(field)
    return known is not None and "SecretStr" in str(known.annotation)


if __name__ == "__main__":
    app()
