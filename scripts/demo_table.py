#!/usr/bin/env python3
"""Prints the demo's table and paragraphs from the JSON that its commands wrote.

usage: demo_table.py FOLDER ORIGINAL NAME…     reads FOLDER/NAME.{inspect,quantize,eval,run}.json
"""

import json
import pathlib
import sys
import textwrap

COLUMNS = ["format", "file size", "bits/weight", "perplexity", "± s.e.", "× original", "quantize", "peak memory", "tokens/s"]


def size(count):
    return f"{count / 1e6:.2f} MB"


def tokens_per_second(run):
    return len(run["tokens"]) / max(run["decode_seconds"], 1e-9)


def row(name, results, original):
    inspect, evaluation, quantize = (results[kind] for kind in ("inspect", "eval", "quantize"))
    return [
        name,
        size(inspect["file_bytes"]),
        f"{inspect['bits_per_weight']:.3f}",
        f"{evaluation['perplexity']:.4f}",
        f"{evaluation['perplexity_stderr']:.4f}",
        f"{evaluation['perplexity'] / original['eval']['perplexity']:.4f}",
        f"{quantize['seconds']:.2f} s" if quantize else "",
        size(quantize["peak_memory_bytes"]) if quantize else "",
        f"{tokens_per_second(results['run']):.0f}",
    ]


def print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for cells in rows:
        aligned = [cells[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        print("  ".join(aligned).rstrip())


def load(folder, name):
    """The original has no `quantize` file."""
    paths = {kind: folder / f"{name}.{kind}.json" for kind in ("inspect", "quantize", "eval", "run")}
    return {kind: json.loads(path.read_text()) if path.exists() else None for kind, path in paths.items()}


def main():
    folder, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    results = {name: load(folder, name) for name in names}
    original = results[names[0]]
    print(f"\nHeld-out text: {original['eval']['tokens']} tokens, context {original['eval']['context']}.\n")
    print_table([COLUMNS] + [row(name, results[name], original) for name in names])
    for name in names:
        print(f"\n{name}:")
        text = "Once upon a time" + results[name]["run"]["text"]
        print(textwrap.fill(" ".join(text.split()), 100, initial_indent="  ", subsequent_indent="  "))


main()
