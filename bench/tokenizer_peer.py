#!/usr/bin/env python3
"""Times the reference `tokenizers` package on the documents of tokenizer_bench, runs that program beside it, and prints
the ratios. Needs: pip install tokenizers (in a virtual environment of its own).

    RAYON_NUM_THREADS=1 python bench/tokenizer_peer.py build/bench/tokenizer_bench
"""

import base64
import json
import os
import subprocess
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers  # noqa: E402
from tokenizers.models import BPE  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARED = os.environ.get("PARE_SHARED", os.path.join(ROOT, "..", "shared"))
TOKENIZERS = os.path.join(SHARED, "testdata", "tokenizers")

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def documents(at_least):
    result = []
    for folder in (os.path.join(SHARED, "testdata", "text"), os.path.join(ROOT, "builtin_text")):
        for name in sorted(os.listdir(folder)):
            data = open(os.path.join(folder, name), "rb").read()
            at = 0
            while at < len(data):
                end = data.find(b"\n", min(at + at_least, len(data)))
                end = len(data) if end < 0 else end + 1
                result.append(data[at:end].decode())
                at = end
    return result


def byte_letters():
    kept = [b for b in range(256) if 0x21 <= b <= 0x7E or (b >= 0xA1 and b != 0xAD)]
    others = [b for b in range(256) if b not in kept]
    letters = {b: chr(b) for b in kept}
    letters.update({b: chr(256 + i) for i, b in enumerate(others)})
    return letters


def merges_of(ranks):
    """Every way to make a token of two others, in the order of the tokens made."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda e: e[1]):
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
    return merges


def llama3():
    letters = byte_letters()
    ranks = {}
    for line in open(os.path.join(TOKENIZERS, "llama-3", "tokenizer.model"), "rb"):
        text, rank = line.split()
        ranks[base64.b64decode(text)] = int(rank)
    spell = lambda raw: "".join(letters[b] for b in raw)
    vocab = {spell(raw): rank for raw, rank in ranks.items()}
    merges = [(spell(left), spell(right)) for left, right in merges_of(ranks)]
    tokenizer = Tokenizer(BPE(vocab, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    config = json.load(open(os.path.join(TOKENIZERS, "llama-3", "tokenizer_config.json")))
    for token in sorted(config["added_tokens_decoder"].items(), key=lambda e: int(e[0])):
        tokenizer.add_special_tokens([AddedToken(token[1]["content"], normalized=False, special=True)])
    return tokenizer


def byte_level(name, pattern=None):
    folder = os.path.join(TOKENIZERS, name)
    tokenizer = Tokenizer(BPE.from_file(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")))
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


PEERS = {
    "gpt2": lambda: byte_level("gpt2"),
    "llama-3": llama3,
    "llama-2": lambda: Tokenizer.from_file(os.path.join(TOKENIZERS, "llama-2", "tokenizer.json")),
    "qwen2": lambda: byte_level("qwen2-0.5b", QWEN2),
    "demo": lambda: Tokenizer.from_file(os.path.join(ROOT, "demo_model", "tokenizer.json")),
}


def ours(program, name):
    out = subprocess.run([program, f"--benchmark_filter=^{name}$", "--benchmark_format=json",
                          "--benchmark_min_time=1"], check=True, capture_output=True, text=True).stdout
    entry = json.loads(out)["benchmarks"][0]
    return entry["bytes_per_second"] / 1e6, int(entry["ids"])


def peer(tokenizer, texts, repeats=2):
    """MB/s of CPU time, the better of the two ways it offers; the number of ids."""
    size = sum(len(t.encode()) for t in texts)
    best, ids = 0.0, 0
    for call in (tokenizer.encode_batch, tokenizer.encode_batch_fast):
        for _ in range(repeats):
            start = time.process_time()
            encoded = call(texts, add_special_tokens=False)
            best = max(best, size / (time.process_time() - start) / 1e6)
            ids = sum(len(e.ids) for e in encoded)
    return best, ids


def main():
    program = sys.argv[1]
    names = sys.argv[2:] or list(PEERS)
    print("documents  tokenizer  pare MB/s  tokenizers MB/s  ratio  ids pare / tokenizers")
    for kind, at_least in (("4 KB", 4096), ("files", 1 << 30)):
        texts = documents(at_least)
        for name in names:
            tokenizer = PEERS[name]()
            theirs, their_ids = peer(tokenizer, texts)
            mine, my_ids = ours(program, ("encode/" if kind == "4 KB" else "encode_files/") + name)
            print(f"{kind:9}  {name:9}  {mine:9.1f}  {theirs:15.2f}  {mine / theirs:5.2f}  {my_ids} / {their_ids}",
                  flush=True)


if __name__ == "__main__":
    main()
