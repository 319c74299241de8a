"""Prints the table of bench_vs_llama_cpp.sh: medians over rounds, ratios, and the share of the measured bandwidth.

Usage: llama_cpp_table.py RESULTS_FOLDER [--json FILE]"""
import argparse
import json
import pathlib
import statistics


def collect(folder: pathlib.Path) -> dict:
    """(dtype, threads, test) -> system -> list of tokens per second; and the bandwidth shares of decoding."""
    speeds: dict = {}
    for path in sorted(folder.glob("llama-*.json")):
        _, dtype, threads, _ = path.stem.split("-")
        for run in json.loads(path.read_text()):
            test = f"prompt {run['n_prompt']}" if run["n_gen"] == 0 else "decode"
            entry = speeds.setdefault((dtype, int(threads), test), {"llama": [], "dsmoe": [], "share": []})
            entry["llama"] += run["samples_ts"]
    for path in sorted(folder.glob("dsmoe-*.json")):
        run = json.loads(path.read_text())
        key = (run["dtype"], run["threads"])
        speeds[(*key, f"prompt {run['prompt']}")]["dsmoe"].append(run["prefill_tokens_per_second"]["median"])
        if "decode_tokens_per_second" in run:
            decode = speeds[(*key, "decode")]
            decode["dsmoe"].append(run["decode_tokens_per_second"]["median"])
            decode["share"].append(run["bandwidth_share"]["median"])
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    print("weights   threads  test        llama.cpp (least to greatest)   dsmoe (least to greatest)       ratio  bandwidth")
    for (dtype, threads, test), entry in sorted(collect(arguments.folder).items()):
        if not entry["llama"] or not entry["dsmoe"]:
            continue
        medians = {name: statistics.median(entry[name]) for name in ("llama", "dsmoe")}
        share = statistics.median(entry["share"]) if entry["share"] else None
        cells = [
            f"{medians[name]:8.1f} ({min(entry[name]):.1f} to {max(entry[name]):.1f})" for name in ("llama", "dsmoe")
        ]
        ratio = medians["dsmoe"] / medians["llama"]
        tail = f"{100 * share:6.0f} %" if share else ""
        print(f"{dtype:<9} {threads:>7}  {test:<10}  {cells[0]:<30}  {cells[1]:<30}  {ratio:5.2f}  {tail}")
        rows.append({"dtype": dtype, "threads": threads, "test": test, **medians, "ratio": ratio, "share": share})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
