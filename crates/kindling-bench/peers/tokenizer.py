#!/usr/bin/env python3
"""One figure of one tokenizer that users would pick instead: training a byte-level BPE, or encoding.

Setup:  python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3 tiktoken==0.14.0 rustbpe==0.1.0 fastokens==0.3.5
Run:    venv/bin/python tokenizer.py FILE PEER train|encode|single [--vocab 16384] [--tokenizer tokenizer.json]

Called by `cargo xtask bench tokenizer --peer PYTHON`, each time in a process of its own, so that caches are cold and memory is
the peer's. `encode` takes all documents of 100,000 characters in one call, `single` one a call. Prints one line of JSON; the
hash of the first documents' ids says whether they are the ids of others.
"""
import argparse, hashlib, json, os, resource, struct, time

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("peer", choices=["rustbpe", "tokenizers", "tiktoken", "fastokens"])
parser.add_argument("what", choices=["train", "encode", "single"])
parser.add_argument("--vocab", type=int, default=16384)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--tokenizer")
args = parser.parse_args()
os.environ["RAYON_NUM_THREADS"] = str(args.threads)

GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
text = open(args.file, encoding="utf-8").read()
docs = [text[i : i + 100_000] for i in range(0, len(text), 100_000)]
out = {}


def timed(f):
    start = time.perf_counter()
    result = f()
    out["seconds"] = time.perf_counter() - start
    return result


def encoding(batch, one, ids):
    """The calls of a peer, and what gives a list of ids from a result of theirs."""
    results = timed(lambda: batch(docs)) if args.what == "encode" else timed(lambda: [one(doc) for doc in docs])
    digest = hashlib.sha256()
    for result in results[:20]:
        listed = list(ids(result))
        digest.update(struct.pack(f"<{len(listed)}I", *listed))
    out["ids"] = digest.hexdigest()


if args.peer == "rustbpe":
    import rustbpe

    bpe = rustbpe.Tokenizer()
    timed(lambda: bpe.train_from_iterator(iter(docs), args.vocab, pattern=GPT2))
elif args.peer == "tokenizers":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if args.what == "train":
        hf = Tokenizer(models.BPE())
        hf.pre_tokenizer, hf.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=args.vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        timed(lambda: hf.train_from_iterator(docs, trainer))
    else:
        hf = Tokenizer.from_file(args.tokenizer)
        encoding(hf.encode_batch_fast, hf.encode, lambda encoded: encoded.ids)
elif args.peer == "tiktoken":
    import tiktoken

    # GPT-2's spelling of bytes, undone. The tokenizer was trained, so its ids are in the order of its merges.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spelled = {chr(byte): byte for byte in printable}
    spelled |= {chr(0x100 + i): byte for i, byte in enumerate(byte for byte in range(256) if byte not in printable)}
    vocab = json.load(open(args.tokenizer, encoding="utf-8"))["model"]["vocab"]
    ranks = {bytes(spelled[char] for char in token): rank for token, rank in vocab.items()}
    enc = tiktoken.Encoding("x", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    encoding(lambda docs: enc.encode_ordinary_batch(docs, num_threads=args.threads), enc.encode_ordinary, list)
else:
    import fastokens

    fast = fastokens.Tokenizer.from_file(args.tokenizer)
    encoding(fast.encode_batch, fast.encode, lambda encoded: encoded.ids)

out["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps(out))
