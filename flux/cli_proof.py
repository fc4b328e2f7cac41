"""The commands that prove and compare: `flux test`, `flux schema`, `flux drift`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flux import directory as directories
from flux import files, hooks, render_proof, schema
from flux.console import keep_output_clean, listener, load_config, open_runner, print_json
from flux.console import tell as say
from flux.exceptions import FluxMigrationException, InvalidConfigurationError
from flux.exit_codes import DISAGREES, DONE, FAILED
from flux.interruption import Interruptible
from flux.plan import find_migration
from flux.proof import Proof, prove
from flux.rehearsal import Stage
from flux.render import printable
from flux.render_late import late_proof_data, late_proof_text
from flux.shadow import scratch_place
from flux.terminal import palette_for

if TYPE_CHECKING:
    from flux.arguments import Arguments
    from flux.config import FluxConfig
    from flux.directory import MigrationDirectory
    from flux.fingerprint import Fingerprint
    from flux.results import Event
    from flux.steps import StepRunner


def test(arguments: Arguments) -> int:
    """Prove migrations, or that it does not matter that some are late."""
    if not arguments.proves_late:
        return _test_undoes(arguments)
    if arguments.junit is not None or arguments.require_undo:
        raise InvalidConfigurationError("--junit and --require-undo are not for --late")
    return _test_late(arguments)


def _test_late(arguments: Arguments) -> int:
    """Apply the late migrations of a database in both orders, and compare."""
    from flux.late_proof import prove_late, to_prove

    arguments.late = "allow"  # it is the plan with them that is proven
    with open_runner(arguments) as target:
        config = _with_options(target.config, arguments)
        applied, late = to_prove(target.plan_apply(), target.state, config.order)
        proof = None
        if late:
            with _stage(arguments, config, target.directory) as stage:
                proof = prove_late(stage, applied, late)
    arguments.line.clear()
    is_proven = proof is None or proof.is_proven
    if arguments.json:
        data = late_proof_data(proof) if proof else None
        print_json(arguments, {"ok": is_proven, "proof": data, "error": None})
    elif proof is None:
        print("no migration is late")
    else:
        print(arguments.host.spell(late_proof_text(proof, palette_for(sys.stdout))))
    return DONE if is_proven else FAILED


def _test_undoes(arguments: Arguments) -> int:
    """Prove migrations one by one, with a line for each as it is proven."""
    config = _config(arguments)
    directory = directories.read_configured(config)
    chosen = _choice(arguments, directory)
    found = hooks.read(directory, config.project_directory)
    palette = palette_for(sys.stdout)
    proofs: list[Proof] = []
    with _report(arguments.junit, proofs), _stage(arguments, config, directory) as stage:
        for proof in prove(stage, found, chosen):
            proofs.append(proof)
            arguments.line.clear()
            if not arguments.json:
                text = render_proof.proof_text(proof, palette)
                print(arguments.host.spell(text), flush=True)
    is_proven = all(proof.verdict not in ("failed", "not reached") for proof in proofs)
    if arguments.json:
        data = {"ok": is_proven, "proofs": render_proof.proofs_data(proofs), "error": None}
        print_json(arguments, data)
    else:
        print(render_proof.proof_summary(proofs))
    return DONE if is_proven else FAILED


@contextmanager
def _report(path: str | None, proofs: list[Proof]) -> Iterator[None]:
    """Write the JUnit report at the end, also of an error that ends the proofs."""
    if path is None:
        yield
        return
    from flux import junit

    files.write(path, junit.report([]))  # that it can be written is found before, and not after
    failure = ""
    try:
        yield
    except FluxMigrationException as error:
        failure = str(error)
        raise
    finally:
        files.write(path, junit.report(proofs, failure))


def _choice(arguments: Arguments, directory: MigrationDirectory) -> Callable[[str], bool]:
    """Which ids are to be proven. Raises `UnknownMigrationError`."""
    ids = [migration.id for migration in directory.migrations]
    if (given := getattr(arguments, "uri", None)) in ids:
        raise InvalidConfigurationError(
            f"{given} is a migration, and stands where the database's address would",
            hint=f"--only {given} proves it, --since {given} that and all newer ones",
        )
    if arguments.only is not None:
        return {ids[find_migration(arguments.only, ids)]}.__contains__
    if arguments.since is not None:
        return set(ids[find_migration(arguments.since, ids) :]).__contains__
    return set(ids).__contains__


def show_schema(arguments: Arguments) -> int:
    """Print the schema, write it to its file, or compare it with its file."""
    config = _config(arguments)
    if arguments.live:
        with open_runner(arguments) as runner, runner.backend.reporting("cannot read the catalog"):
            found = runner.backend.fingerprint()
    else:
        with _stage(arguments, config, directories.read_configured(config)) as stage:
            found = schema.made_by_migrations(stage)
    found = found.without((*config.ignore, *arguments.ignore))
    arguments.line.clear()
    if arguments.write:
        files.write(config.schema_file, schema.text_of(found))
        if arguments.json:
            print_json(arguments, {"path": config.schema_file})
        else:
            print(f"written  {config.schema_file}")
        return DONE
    if arguments.check:
        return _check_schema(arguments, config, found)
    if arguments.json:
        print_json(arguments, {"items": render_proof.schema_data(found)})
    else:
        print("\n".join(map(printable, found.lines())))
    return DONE


def _check_schema(arguments: Arguments, config: FluxConfig, found: Fingerprint) -> int:
    path = config.schema_file
    kept = files.read(path)
    changes = render_proof.text_changes(kept or "", schema.text_of(found), path, "the migrations")
    if arguments.json:
        print_json(arguments, {"ok": not changes, "path": path, "diff": changes})
    elif changes:
        print("\n".join(changes))
        state = f"there is no {path}" if kept is None else f"{path} is out of date"
        hint = arguments.host.spell("`flux schema --write` writes it")
        print(f"{state}; {hint}", file=sys.stderr)
    else:
        print(f"{path} is up to date")
    return FAILED if changes else DONE


def drift(arguments: Arguments) -> int:
    """Compare a database with what its applied migrations make of an empty one."""
    with open_runner(arguments) as target:
        config = _with_options(target.config, arguments)
        with _stage(arguments, config, target.directory) as stage:
            found = schema.find_drift(stage, target, (*config.ignore, *arguments.ignore))
    arguments.line.clear()
    if arguments.json:
        data = {"ok": not found, "differences": render_proof.differences_data(found)}
        print_json(arguments, data)
    elif found:
        print("(- made by the migrations, + in the database)")
        print("\n".join(render_proof.difference_lines(found, palette_for(sys.stdout))))
        print(f"\n{render_proof.drift_summary(found)}")
    else:
        print("no drift: the database is what its migrations make")
    return DISAGREES if found else DONE


# What they share ----------------------------------------------------------------------------


def _config(arguments: Arguments) -> FluxConfig:
    keep_output_clean(arguments)
    return _with_options(load_config(arguments), arguments)


def _with_options(config: FluxConfig, arguments: Arguments) -> FluxConfig:
    """A configuration with what the options of proofs say differently."""
    return config._replace(
        throw_away_server=config.throw_away_server or arguments.throw_away_server,
        require_undo=config.require_undo or getattr(arguments, "require_undo", False),
    )


@contextmanager
def _stage(
    arguments: Arguments, config: FluxConfig, directory: MigrationDirectory
) -> Iterator[Stage]:
    """Where the migrations are rehearsed; Ctrl-C ends the statement that runs there."""
    tell = listener(arguments, config)
    calls: list[Interruptible] = []

    def on_event(event: Event) -> None:
        if event.kind == "done" and calls and calls[-1].was_interrupted:
            raise KeyboardInterrupt
        if event.kind not in ("start", "done"):  # those are of no step on the user's database
            tell(event)

    def on_runner(runner: StepRunner) -> None:
        if runner.backend.cancellable:
            calls.append(Interruptible(runner.backend.cancel, arguments.abandon))
            runner.call = calls[-1]

    database = arguments.host.database(arguments)
    with scratch_place(
        config, database, shadow_url=arguments.shadow_url, here=arguments.here
    ) as place:
        place.announce = say
        yield Stage(config, directory, place, on_event, on_runner)
