"""Called by scripts/interop: PARE DIRECTORY. Ends with 1 when a package does not load a checkpoint that it should, or
gives other logits."""
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, logging  # noqa: E402

TOKENS = [(i * 37 + 11) % 4000 for i in range(48)]
EXACT, ROUNDED, ACTIVATIONS = 1e-3, 2e-2, 5e-2  # allowed difference, relative to the largest logit

# recipe, package, type to compute in, allowed difference and why it is not smaller
CASES = [
    ("w4a16", "compressed-tensors", torch.float32, EXACT, ""),
    ("w8a16", "compressed-tensors", torch.float32, EXACT, ""),
    ("w8a8", "compressed-tensors", torch.float32, ACTIVATIONS, "the package quantizes activations"),
    ("fp8", "compressed-tensors", torch.float32, ACTIVATIONS, "the package quantizes activations"),
    ("fp8-block", "compressed-tensors", torch.float32, ACTIVATIONS, "the package quantizes activations"),
    ("mxfp4", "compressed-tensors", torch.bfloat16, ACTIVATIONS, "the package computes in bf16"),
    ("nvfp4", "compressed-tensors", torch.bfloat16, ACTIVATIONS, "the package computes in bf16"),
    ("nf4", "bitsandbytes", torch.float32, ROUNDED, "the package computes in bf16"),
    ("nf4-dq", "bitsandbytes", torch.float32, ROUNDED, "the package computes in bf16"),
    ("fp4", "bitsandbytes", torch.float32, ROUNDED, "the package computes in bf16"),
    ("llm-int8", "bitsandbytes", torch.float32, ROUNDED, "the package quantizes activations"),
    ("Q8_0", "gguf", torch.float32, EXACT, ""),
    ("Q6_K", "gguf", torch.float32, EXACT, ""),
    ("Q4_K_M", "gguf", torch.float32, EXACT, ""),
    ("Q3_K_M", "gguf", torch.float32, EXACT, ""),
    ("Q5_0", "gguf", torch.float32, EXACT, ""),
    ("IQ4_XS", "gguf", torch.float32, EXACT, ""),
]


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def our_logits(pare, model, work):
    out = work / "logits.safetensors"
    run(pare, "run", model, "--tokens", ",".join(map(str, TOKENS)), "-n", "1", "--logits", out)
    return next(iter(load_file(out).values())).float()


def their_logits(model, dtype):
    options = {"gguf_file": model.name} if model.suffix == ".gguf" else {}
    loaded = AutoModelForCausalLM.from_pretrained(model.parent if options else model, dtype=dtype, **options).eval()
    with torch.no_grad():
        return loaded(torch.tensor([TOKENS])).logits[0].float()


def main():
    pare, work = sys.argv[1], pathlib.Path(sys.argv[2])
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    print("| recipe | package | largest difference / largest logit | |\n|---|---|---|---|")
    bad = 0
    for recipe, package, dtype, allowed, why in CASES:
        folder = work / recipe
        model = folder / "model.gguf" if package == "gguf" else folder
        if package == "gguf":
            folder.mkdir()
        try:
            run(pare, "quantize", "demo_model", "-o", model, "--recipe", recipe, "--method", "rtn", "--quiet")
            ours, theirs = our_logits(pare, model, work), their_logits(model, dtype)
            ours = ours[: len(theirs)]
            difference = ((ours - theirs[: len(ours)]).abs().max() / theirs.abs().max()).item()
            bad += not difference <= allowed
            result = f"{difference:.1e}" + ("" if difference <= allowed else f" (allowed {allowed:g})")
        except Exception as error:  # a package's own, of any kind
            text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            bad, result = bad + 1, "does not load: " + text.strip().splitlines()[-1][:120]
        print(f"| {recipe} | {package} {importlib.metadata.version(package)} | {result} | {why} |", flush=True)
    sys.exit(1 if bad else 0)


main()
