"""`python -m udipdist VERB ...`: what torchrun and deepspeed launch."""

from udipdist.cli import program

program()
