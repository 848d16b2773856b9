"""The verbs, in pipeline order. Each loads a configuration and calls one function.

Grammar: udipdist VERB [CONFIG.yaml] [key=value ...] [--dry-run]. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from hpc import __version__, log
from hpc.config import Config, describe
from hpc.errors import ConfigError, Preempted, Stopped, of_the_user
from hpc.shelter import sheltered
from hpc.world import World
from udipdist.verbs import VERBS, Verb

_STAGES = frozenset(  # verbs whose output has a manifest of their own name, of one configuration
    {
        "simulate", "ingest", "volumes", "train", "embed", "grm", "gwas", "export", "loci", "panel", "erase", "probe",
        "phewas", "interpret attention", "interpret perturb", "interpret saliency", "interpret gallery",
        "interpret clusters",
    }
)  # fmt: skip
_GOES_ON = "the same command continues where it stopped"


class _VerbCommand(click.Command):
    """A click command whose help lists the keys of its configuration class."""

    def __init__(self, verb: Verb):
        self.verb = verb
        super().__init__(
            verb.name.split()[-1],
            callback=lambda words, dry_run: execute(verb, words, dry_run),
            params=[
                click.Argument(["words"], nargs=-1, metavar=verb.grammar),
                click.Option(
                    ["--dry-run"], is_flag=True, help="Print the resolved configuration and what would be done."
                ),
            ],
            help=verb.config.__doc__,
            short_help=(verb.config.__doc__ or "").split("\n")[0].split(":")[0],
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but a key with dashes is answered with the key as it is typed here."""
        for i, word in enumerate(args):
            name = word.lstrip("-").partition("=")[0].replace("-", "_")
            if word.startswith("-") and name.split(".")[0] in self.verb.config.model_fields:
                value = word.partition("=")[2] or next(iter(args[i + 1 : i + 2]), "VALUE")
                raise click.UsageError(f"{word}: keys have no dashes; type {name}={value}", ctx)
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\nKeys:\n")
        for doc in describe(self.verb.config):
            default = "required" if doc.default == "(required)" else f"default {doc.default}"
            formatter.write(f"  {doc.key}  ({doc.type}; {default})\n")
            formatter.write(textwrap.fill(doc.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6) + "\n")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="udipdist")
@click.option(
    "--local_rank", "--local-rank", type=int, hidden=True, expose_value=False
)  # the deepspeed launcher adds it
def main() -> None:
    """From brain MRI volumes and genotypes to genomic risk loci, without labels.

    udipdist VERB [CONFIG.yaml] [key=value ...]; the verbs are below, in pipeline order.
    """


_GROUPS = {"interpret": "What a network looks at, what its latents look like, and which SNPs move them alike."}


class _Ordered(click.Group):
    """A group that lists its commands in the order of the verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


main.list_commands = lambda ctx: list(dict.fromkeys(verb.name.split()[0] for verb in VERBS))  # pipeline order
for _name, _help in _GROUPS.items():
    main.add_command(_Ordered(_name, help=_help))
for _verb in VERBS:
    *_group, _word = _verb.name.split()
    (main.commands[_group[0]] if _group else main).add_command(_VerbCommand(_verb))  # type: ignore[attr-defined]


def program() -> NoReturn:
    """The command `udipdist`: `main`, and an end that is safe where ranks have joined a process group."""
    from hpc.comm import leave

    os.environ.update(sheltered(os.environ))
    try:
        main(prog_name="udipdist")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        leave(code, together=code in (0, Preempted.exit_code))
    leave()


def resolve(verb: Verb, words: tuple[str, ...]) -> Config:
    """The configuration of a command line. Raises ConfigError."""
    path, given = None, ()
    if verb.word is not None and words and re.fullmatch(verb.word_is, words[0]):
        # Quoted, as YAML takes 010 for 8; what JSON writes is YAML.
        given, words = (f"{verb.word}={json.dumps(words[0], ensure_ascii=False)}",), words[1:]
    if words and "=" not in words[0]:
        path, words = words[0], words[1:]
    stray = [word for word in words if "=" not in word]
    if stray:
        raise ConfigError(
            f"{stray[0]!r}: is not of the form key=value; the form is udipdist {verb.name} {verb.grammar}"
        )
    return verb.config.load(path, (*given, *words))


def execute(verb: Verb, words: tuple[str, ...], dry_run: bool) -> None:
    """Run one verb; a user's mistake ends with its message and exit code, without a traceback."""
    from hpc.stopping import stoppable

    with stoppable():
        _execute(verb, words, dry_run)


def _execute(verb: Verb, words: tuple[str, ...], dry_run: bool) -> None:
    from hpc.comm import leave
    from hpc.torchrun import end_with_launcher

    world = World()
    try:
        world = World.detect(os.environ)
        end_with_launcher(os.environ)
        log.setup(world)
        config = resolve(verb, words)
        module = importlib.import_module(verb.module)
        if dry_run:
            click.echo("".join(f"# {line}\n" for line in module.preview(config)) + config.yaml(), nl=False)
            return
        done = _finished(verb, config)
        if done is not None:
            _say(f"udipdist {verb.name}: {done} is up to date; overwrite=true makes it again")
            return
        getattr(module, verb.function)(config)
    except Exception as error:
        from hpc.comm import of_another_rank

        told = of_the_user(error) or of_another_rank(error)
        if told is None:
            raise
        if not isinstance(told, Preempted):  # which all ranks leave together
            _let_the_main_rank_speak(world)
        where = f" (rank {world.rank})" if world.size > 1 else ""
        _say(f"udipdist {verb.name}{where}: {told}")
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        _say(f"udipdist {verb.name}: interrupted; {_GOES_ON}")
        sys.exit(130)
    except Stopped as stopped:
        _say(f"udipdist {verb.name}: {stopped}; {_GOES_ON}")
        if world.size > 1:
            leave(stopped.exit_code, together=False)
        sys.exit(stopped.exit_code)


def _finished(verb: Verb, config: Config) -> Path | None:
    """The output of a stage, where it is complete, made by this configuration, and no input has changed since."""
    from udipdist.pipeline import Step

    out = getattr(config, "run_dir" if verb.name == "train" else "out", None)
    if out is None or verb.name not in _STAGES or getattr(config, "overwrite", False):
        return None
    step = Step(verb.name, verb.name, config, Path(out))
    return Path(out) if step.current and step.accepted else None


def _say(message: str) -> None:
    with suppress(OSError):  # where the screen is a file, on a disk that is full
        click.echo(message, err=True)


def _let_the_main_rank_speak(world: World) -> None:
    """Most mistakes are met by every rank: rank 0 says so, and its launcher ends the others while they wait here."""
    from hpc.comm import PATIENCE, leave

    if not world.is_main:
        try:
            time.sleep(PATIENCE)
        except Stopped as stopped:
            leave(stopped.exit_code, together=False)
