"""Demonstrations coming in: find, read, check, inspect, and choose what a learner sees."""

from mairl.demos.catalog import find_demonstrations, recorded_in
from mairl.demos.data import shipped
from mairl.demos.formats import Demonstrations, load_npz
from mairl.demos.inspect import DemoReport, inspect
from mairl.demos.minari import load_minari
from mairl.demos.show import render, render_list
from mairl.demos.subsample import ExpertData, subsample

__all__ = [
    "DemoReport",
    "Demonstrations",
    "ExpertData",
    "find_demonstrations",
    "inspect",
    "load_minari",
    "load_npz",
    "recorded_in",
    "render",
    "render_list",
    "shipped",
    "subsample",
]
