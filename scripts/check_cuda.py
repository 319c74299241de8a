#!/usr/bin/env python3
"""Checks the CUDA kernels statically; needs a CUDA 13.0 toolkit and no GPU.

Compiles every csrc_kernels/*/cuda.cu for each GPU generation and compares what ptxas reports with
csrc_kernels/ptxas_budget.txt: registers and shared memory of a kernel may not exceed their line, none may spill or keep a
stack frame, each must have launch bounds. Then the CUDA front end of clang-19 reads the files, and clang-tidy-19 checks their
device and their host side, where these are installed (Debian: clang-19 clang-tidy-19).

usage: check_cuda.py [--update] [--no-clang] [FILE.cu ...]
  --update   write the budget from the present use of the kernels, registers rounded up to a multiple of 8
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUDGET = ROOT / "csrc_kernels/ptxas_budget.txt"
TOOLKIT = pathlib.Path(os.environ.get("CUDAToolkit_ROOT", "/usr/local/cuda"))
ARCHITECTURES = ["sm_80", "sm_90", "sm_100"]
INCLUDES = ["-I.", "-Isrc"]
HEADER = """# What a kernel may use, a line each: the kernel, then by GPU generation its registers a thread and static shared bytes a
# block. Checked by scripts/check_cuda.py; --update writes it. Spills and stack frames are refused everywhere.
"""


def run(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def demangled(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [re.sub(r"^dsmoe::device::", "", line.split("(")[0]) for line in text.splitlines()]


def measure(file, architecture):
    """{kernel: (registers, shared)} of a file, and the complaints about it."""
    with tempfile.TemporaryDirectory() as folder:
        code, text = run([
            str(TOOLKIT / "bin/nvcc"), "-std=c++20", f"-arch={architecture}", "-O3", *INCLUDES, "-Werror", "all-warnings",
            "-Xcompiler", "-fPIC,-Wall,-Wextra", "-Xptxas", "-v,--warn-on-local-memory-usage,--warn-on-spills,-Werror", "-c", file, "-o", f"{folder}/o.o"])
        if code != 0:
            return {}, [f"{file}: {architecture}: does not compile:\n{text[-2000:]}"]
        code, log = run([str(TOOLKIT / "bin/nvcc"), "-std=c++20", f"-arch={architecture.replace('sm_', 'compute_')}", *INCLUDES,
                         "-ptx", file, "-o", f"{folder}/o.ptx"])
        ptx = pathlib.Path(f"{folder}/o.ptx").read_text() if code == 0 else ""
    complaints = []
    names, values = [], []
    for block in re.split(r"Compiling entry function ", text)[1:]:
        names.append(re.match(r"'([^']+)'", block).group(1))
        registers = int(re.search(r"Used (\d+) registers", block).group(1))
        shared = re.search(r"(\d+) bytes smem", block)
        values.append((registers, int(shared.group(1)) if shared else 0))
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", block)
        if frame and any(int(n) for n in frame.groups()):
            complaints.append(f"{file}: {architecture}: {names[-1]}: {frame.group(0)}")
    for entry in re.split(r"\.entry ", ptx)[1:]:
        name = demangled([entry.split("(")[0].strip()])[0]
        if ".maxntid" not in entry.split("{")[0] and not library_kernel(name):
            complaints.append(f"{file}: {name}: no launch bounds")
    if not names:
        complaints.append(f"{file}: {architecture}: no kernel found")
    return dict(zip(demangled(names), values)), complaints


def library_kernel(name):
    """Kernels of CUB and Thrust have no budget."""
    return name.removeprefix("void ").startswith(("cub::", "thrust::"))


def read_budget():
    budget = {}
    for line in BUDGET.read_text().splitlines() if BUDGET.exists() else []:
        if line.startswith("#") or not line.strip():
            continue
        name, *numbers = line.split()
        budget[name] = {a: tuple(int(n) for n in pair.split("/")) for a, pair in (item.split("=") for item in numbers)}
    return budget


def write_budget(measured):
    lines = []
    for name in sorted(measured):
        numbers = " ".join(f"{a}={-(-r // 8) * 8}/{s}" for a, (r, s) in sorted(measured[name].items()))
        lines.append(f"{name} {numbers}\n")
    BUDGET.write_text(HEADER + "".join(lines))


def compare(measured, budget, whole):
    complaints = []
    for name, by_architecture in sorted(measured.items()):
        for architecture, (registers, shared) in by_architecture.items():
            allowed = budget.get(name, {}).get(architecture)
            if allowed is None:
                complaints.append(f"{name}: {architecture}: no line in {BUDGET.name}")
            elif registers > allowed[0] or shared > allowed[1]:
                complaints.append(f"{name}: {architecture}: {registers} registers and {shared} shared bytes, "
                                  f"allowed {allowed[0]} and {allowed[1]}")
    if whole:
        complaints += [f"{name}: in {BUDGET.name}, but no such kernel" for name in sorted(set(budget) - set(measured))]
    return complaints


def clang_flags(side):
    return ["-std=c++20", "-x", "cuda", f"--cuda-path={TOOLKIT}", "--cuda-gpu-arch=sm_90", "-Icsrc_kernels/common/clang_cuda_shim",
            *INCLUDES, "-isystem", str(TOOLKIT / "include/cccl"), "-Wno-unknown-cuda-version", "-Wall", "-Wextra", "-Wshorten-64-to-32", "-Werror", side]


def check_with_clang(file):
    complaints = []
    for side in ("--cuda-host-only", "--cuda-device-only"):
        code, text = run(["clang++-19", *clang_flags(side), "-fsyntax-only", file])
        if code != 0:
            complaints.append(f"{file}: clang {side}:\n{text[-3000:]}")
        code, text = run(["clang-tidy-19", "--quiet", f"--checks=-*,bugprone-*,-bugprone-easily-swappable-parameters,"
                          "-bugprone-macro-parentheses,clang-analyzer-core*,performance-*,-performance-enum-size", "--warnings-as-errors=*",
                          "--header-filter=csrc_kernels/.*", file, "--", *clang_flags(side)])
        if code != 0:
            complaints.append(f"{file}: clang-tidy {side}:\n{text[-3000:]}")
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--no-clang", action="store_true")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if not (TOOLKIT / "bin/nvcc").exists():
        sys.exit(f"check_cuda: no nvcc in {TOOLKIT}; name a CUDA 13.0 toolkit in CUDAToolkit_ROOT")
    files = options.files or sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc_kernels/*/cuda.cu"))
    measured, complaints = {}, []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(a, pool.submit(measure, f, a)) for f in files for a in ARCHITECTURES]
        has_clang = shutil.which("clang++-19") and shutil.which("clang-tidy-19")
        clang_jobs = [pool.submit(check_with_clang, f) for f in files] if has_clang and not options.no_clang else []
        for architecture, job in jobs:
            kernels, found = job.result()
            complaints += found
            for name, numbers in kernels.items():
                if not library_kernel(name):
                    measured.setdefault(name, {})[architecture] = numbers
        for job in clang_jobs:
            complaints += job.result()
    if options.update:
        write_budget(measured if not options.files else {**read_budget(), **measured})
    complaints += compare(measured, read_budget(), whole=not options.files)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    clang = "clang-19 and clang-tidy-19 too" if clang_jobs else "clang-19 was not asked or is not installed"
    print(f"check_cuda: {len(files)} files, {len(measured)} kernels for {', '.join(ARCHITECTURES)}, {clang}: "
          f"{len(complaints)} complaints")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
