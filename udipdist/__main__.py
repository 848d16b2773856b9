"""`python -m udipdist VERB ...`: what torchrun and deepspeed launch."""

from udipdist.cli import main

main(prog_name="udipdist")
