"""Chromosomes and assemblies: how places in a genome are written."""
