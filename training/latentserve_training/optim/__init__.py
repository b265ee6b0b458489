"""Optimiser steps and learning rate schedules.

A loss and an optimiser come in; the weights change, or a `NonFiniteLossError` is raised. May
import `errors` and `distributed`, and no kind of model.
"""
