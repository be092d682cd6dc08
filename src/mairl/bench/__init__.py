"""Comparing algorithms over tasks and seeds: from one declarative file to tables and figures.

suite        the file: tasks, algorithms, seeds
cells        (task, algorithm, seed): where each lies, the command that runs it
schedule     run the missing ones, several at a time, with a live table
results      one JSON of raw numbers
statistics   interquartile means, intervals, profiles
report       tables; figures
"""
