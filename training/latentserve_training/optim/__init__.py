"""Optimiser steps and learning rate schedules.

A loss and an optimiser come in; the weights change, or a `NonFiniteLossError` is raised. Knows
no model.
"""
