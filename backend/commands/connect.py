"""`segzero connect`: joins the backend to a project of a running Label Studio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backend.commands.console import stderr, stdout

if TYPE_CHECKING:
    from backend.connect import ConnectReport


def connect(
    project: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of the project, as in its address /projects/NUMBER.",
            show_default=False,
        ),
    ],
    url: Annotated[
        str | None,
        typer.Option(help="Address of Label Studio, or SEGZERO_LABEL_STUDIO_URL."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="Access token (Account & Settings), or better SEGZERO_LABEL_STUDIO_TOKEN: "
            "others on this machine can see a command line."
        ),
    ] = None,
    backend_url: Annotated[
        str | None,
        typer.Option(
            help="Address of the backend as Label Studio's machine sees it.  "
            "[default: 127.0.0.1 at SEGZERO_PORT]"
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a model that is still loading.")
    ] = 120.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Join the running backend to a project, and say what was done.

    Once per project. Checks the token and the labelling config, registers the ML backend (with
    SEGZERO_USER and SEGZERO_PASSWORD if set), makes its webhook (with SEGZERO_WEBHOOK_SECRET if
    set) and sets the project's model version. Removes nothing; running it again changes
    nothing.

    Example: `segzero connect --project 7`

    Example: `segzero connect --project 7 --backend-url http://10.0.0.5:9090`
    """
    from backend.connect import BackendAccess
    from backend.connect import connect as join
    from backend.label_studio import LabelStudio
    from backend.settings import check_guards, load_settings

    settings = load_settings(label_studio_url=url, label_studio_token=token)
    check_guards(settings)
    if settings.label_studio_url is None or settings.label_studio_token is None:
        raise typer.BadParameter(
            "Label Studio's address and token are needed: --url and --token, or "
            "SEGZERO_LABEL_STUDIO_URL and SEGZERO_LABEL_STUDIO_TOKEN."
        )
    access = BackendAccess(
        backend_url or f"http://127.0.0.1:{settings.port}",
        settings.user,
        settings.password,
        settings.webhook_secret,
    )
    with (
        LabelStudio(settings.label_studio_url, settings.label_studio_token) as client,
        stderr().status("Talking to Label Studio"),
    ):
        report = join(client, project, access, dry_run=dry_run, wait_s=wait)
    _print(report, dry_run)


def _print(report: ConnectReport, dry_run: bool) -> None:
    from rich.text import Text

    console = stdout()
    console.print(Text.assemble((f"Project {report.project}", "bold"), f" at {report.page}"))
    for line in report.unchanged:
        console.print(Text(f"  =  {line}: as it should be"))
    for line in report.done:
        console.print(Text(f"  {'?' if dry_run else '+'}  {line}"))
    if not report.done:
        console.print("Nothing had to be changed.")
    elif dry_run:
        console.print("Nothing was changed: this was a dry run.")
    if report.todo:
        console.print(Text("Still to do:", style="bold yellow"))
        for number, line in enumerate(report.todo, start=1):
            console.print(Text(f"  {number}. {line}"))
    elif not dry_run:
        console.print(
            "Next: open a task, or select tasks in the Data Manager and choose Actions, "
            "Retrieve predictions."
        )
