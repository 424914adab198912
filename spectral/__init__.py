"""Spectra without files, devices or arguments: what a model hears and makes."""
