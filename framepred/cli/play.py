"""`framepred play`: step into a world, in the browser."""

from contextlib import ExitStack
from pathlib import Path

import click

from framepred.cli import options
from framepred.cli.console import print_json, say
from framepred.cli.group import cli
from framepred.errors import FramepredError


@cli.command(sections={"What it begins from": ("clip", "env", "context"), "The page": ("fps", "port", "out")})
@click.argument("run", default="doom-64")
@click.option("--clip", metavar="VIDEO", help="Video to begin from.  [default: RUN/start.mp4]")
@click.option("--env", metavar="ENV", help="Gymnasium environment to begin from, which is played beside the dream.")
@click.option("--context", default=4, show_default=True, type=click.IntRange(1, 1000), help="Frames that are given.")
@click.option(
    "--fps", default=15.0, show_default=True, type=click.FloatRange(1, 60), help="At most so many frames a second."
)
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="Port of the page; 0 is a free one."
)
@click.option(
    "-o",
    "--out",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what is kept.",
)
@options.DEVICE
@click.option("--json", "as_json", is_flag=True, help='Print one line, {"url": ...}, once the page can be opened.')
def play(
    run: str, clip: str | None, env: str | None, context: int, fps: float, port: int, out: Path, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Step into a world: a page on this machine, steered by keys. RUN is a run's folder or name.

    Only this machine can open the page, and only with the address that is printed. Ctrl-C ends it.

    \b
    Examples:
      # the model that comes along
      framepred play
      # your own, from a moment of a video
      framepred play run --clip videos/one.mp4
      # the dream beside the game itself
      framepred play doom-64 --env VizdoomMyWayHome-v1
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        from framepred.play.server import serve
    except ModuleNotFoundError as error:
        raise FramepredError(f"play needs {error.name}: pip install 'framepred[play]'") from error
    from framepred.play.open import open_game

    def announce(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            click.echo(url)
            say("open this address in a browser on this machine; Ctrl-C ends")

    with ExitStack() as stack:
        worker = stack.enter_context(ThreadPoolExecutor(1, "game"))
        game = stack.enter_context(open_game(run, clip, env, context, device))
        asyncio.run(serve(game, worker, out, fps, port, announce))
