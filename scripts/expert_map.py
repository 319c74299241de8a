#!/usr/bin/env python3
"""Prints how many experts the tokens of each text use in each layer (arXiv:2502.12455, figure 3), and draws the map.

Usage: expert_map.py CHECKPOINT TEXT... [--policy POLICY] [--svg FILE]
"""

import argparse
import json
import pathlib
import subprocess
import sys

DSMOE = pathlib.Path(__file__).resolve().parent.parent / "build" / "dsmoe"
KINDS = {"moe": "FFN", "moa": "attention"}
CELL, MARGIN, LINE = (90, 26), 110, 20


def expert_use(dsmoe, checkpoint, text, policy):
    """For each kind of experts, one object per layer."""
    command = [dsmoe, "eval", checkpoint, "--data", text, "--json", *(["--policy", policy] if policy else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stderr.strip()}\nexpert_map: failed on {text}")
    return json.loads(done.stdout)["expert_use"]


def mean(values):
    return sum(values) / len(values)


def print_table(kind, names, columns):
    """columns: for each text a list of layers."""
    print(f"| {KINDS[kind]} layer | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")
    for i, row in enumerate(zip(*columns)):
        print(f"| {i} | {' | '.join(f'''{layer['active']:.2f}''' for layer in row)} |")
    print(f"| mean | {' | '.join(f'''{mean([layer['active'] for layer in c]):.2f}''' for c in columns)} |")
    print(f"| no expert | {' | '.join(f'''{mean([layer['without'] for layer in c]):.2%}''' for c in columns)} |\n")


def draw(kind, names, columns, top):
    """SVG of one map below `top`, and its height; darker means more experts."""
    counts = [[layer["active"] for layer in column] for column in columns]
    low, high = min(map(min, counts)), max(map(max, counts))
    parts = [f'<text x="4" y="{top + LINE - 6}">{KINDS[kind]}</text>']
    for x, (name, column) in enumerate(zip(names, counts)):
        left = MARGIN + x * CELL[0]
        parts.append(f'<text x="{left + 4}" y="{top + LINE - 6}">{name[-12:]}</text>')
        for y, count in enumerate(column):
            share = (count - low) / (high - low) if high > low else 0.0
            shade, ink = round(255 - 200 * share), "#fff" if share > 0.6 else "#000"
            at = top + LINE + y * CELL[1]
            parts.append(
                f'<rect x="{left}" y="{at}" width="{CELL[0]}" height="{CELL[1]}" fill="rgb({shade},{shade},255)"/>'
                f'<text x="{left + 30}" y="{at + 18}" fill="{ink}">{count:.2f}</text>'
            )
    parts += [f'<text x="4" y="{top + LINE + y * CELL[1] + 18}">layer {y}</text>' for y in range(len(counts[0]))]
    return "".join(parts), LINE + len(counts[0]) * CELL[1] + LINE


def write_svg(path, names, maps):
    height, body = 0, []
    for kind, columns in maps.items():
        part, used = draw(kind, names, columns, height)
        body.append(part)
        height += used
    width = MARGIN + len(names) * CELL[0]
    pathlib.Path(path).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13">{"".join(body)}</svg>\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("text", nargs="+", help="text files or token shards")
    parser.add_argument("--policy", help="routing policy as for eval (default: the training policy)")
    parser.add_argument("--svg", help="draw the map into this file")
    parser.add_argument("--dsmoe", default=DSMOE, help="the program (default: %(default)s)")
    options = parser.parse_args()
    uses = [expert_use(options.dsmoe, options.checkpoint, text, options.policy) for text in options.text]
    paths = [pathlib.Path(text) for text in options.text]
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.stem}" for path in paths]
    maps = {kind: [use[kind] for use in uses] for kind in uses[0]}
    if not maps:
        sys.exit(f"expert_map: expected a model with experts, got {options.checkpoint}")
    for kind, columns in maps.items():
        print_table(kind, names, columns)
    if options.svg:
        write_svg(options.svg, names, maps)


if __name__ == "__main__":
    main()
