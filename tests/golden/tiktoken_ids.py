#!/usr/bin/env python3
"""Writes tiktoken_ids.json: what tiktoken makes of nasty text, with OpenAI's four published vocabularies.

The vocabularies come from the files of the tiktoken-rs crate, as tiktoken itself would fetch them; their hashes are checked
against those that tiktoken pins. README.md beside this file has the commands.
"""
import base64, hashlib, json, pathlib, random, sys, unicodedata
from importlib.metadata import version

import tiktoken
from tiktoken_ext import openai_public

if version("tiktoken") != "0.14.0":
    sys.exit(f"expected tiktoken 0.14.0, found {version('tiktoken')}")

assets = pathlib.Path(sys.argv[1])
HASHES = {
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}


def ranks(name):
    data = (assets / f"{name}.tiktoken").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != HASHES[name]:
        sys.exit(f"{name}.tiktoken has SHA-256 {found}, expected {HASHES[name]}")
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines() if line)}


openai_public.load_tiktoken_bpe = lambda url, expected_hash=None: ranks(url.rsplit("/", 1)[1].removesuffix(".tiktoken"))
encodings = {name: tiktoken.Encoding(**getattr(openai_public, name)()) for name in HASHES}

rng = random.Random(20261124)
by_category = {}
for code in range(sys.maxunicode + 1):
    category = unicodedata.category(chr(code))
    if category != "Cs":
        by_category.setdefault(category, []).append(chr(code))


def of_category(category):
    # What other libraries' Unicode tables call unassigned may have been assigned since: their private and unassigned
    # characters are left to the ends of planes.
    chars = by_category[category]
    picked = rng.sample(chars, min(12, len(chars)))
    return "".join(picked) + " " + " ".join(picked) + "a".join(picked) + "\n1".join(picked)


texts = [of_category(category) for category in sorted(by_category) if category != "Cn"]
texts += [
    "", " ", "\n", "a", " a", "  a", "\u0378\U0010ffff\U0001ffff",
    "The quick brown fox jumps over the lazy dog. It's 3.14, isn't it? WE'LL see; they'd've known. I'M YOU'RE 'tis O'Neil's 'S 'ſ",
    "HTTPServer getURLFromJSON camelCase snake_case SCREAMING_CASE McDonald's ÉCOLEnormale ЖЕНЯкатя",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽👍🏿 🇩🇪🇯🇵 ❤️‍🔥 #️⃣ 🧑🏿‍🚀🧑‍🚀x👨‍💻1",
    "e\u0301a\u0300\u0301\u0302 Z\u0351\u036b\u0343a\u0328l\u030ag\u0322o\u0321 \u0301 \u0301A\u0301B\u0301c",
    "日本語のテキスト、中文文本。我们都是好朋友，2024年12月31日。한국어 텍스트 ไทยภาษา हिन्दी भाषा",
    "العربية لغة جميلة ١٢٣٤ עברית שפה \u202eright to left\u202c mixed عربي with English",
    "0 12 345 6789 1234567890123456789 ½ ² Ⅷ ٣٤٥ 一二三 １２３ 1,234.56 0x1F 1e-7",
    " " * 3 + "x" + " " * 17 + "y" + " " * 81 + "z" + " " * 200,
    "\t\t\tx\n\n\n\n\ty\r\n\r\n  \r\nz \t \n \r \x0b\x0c\x85\u2028\u2029\u00a0 end   \n  ",
    "trailing spaces   ", "trailing newlines\n\n\n", "trailing mix \n \n  ", "  \n  x", "\n\nx", "x\n\n", "x \n", "x\n ",
    "nul \0 bell \x07 escape \x1b[0m delete \x7f bom \ufeff private \ue000 replacement \ufffd",
    "a\u00a0b \u00a0 c\u2003\u2003d\u3000e\u3000\u3000f\u200bg\u200dh\u2060i",
    "fn main() {\r\n\tlet x: Vec<u8> = vec![0; 1_000];\r\n    // naïve café\r\n}\r\n/* a */ //\n///\n!!!\n\n???\r\n\r\n/",
    "=" * 100 + "-" * 33 + "." * 7 + "/" * 5 + "\n/\n//\n", "x" * 150, "ab" * 90, "é" * 60, "日" * 50, "ah" * 33 + "!" * 33,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "<|endoftext|> <|endofprompt|> <|fim_prefix|>x<|fim_suffix|>", "<unk> <s> </s> [PAD] ĠtheĊ Ġ Ċ ĉ",
    "$100 €50 £7.50 ¥1000 50% @user #tag a&b c*d e^f ~g `h` {i} [j] |k| \\l",
    "ǅungla ǈǋǲ ʰʲʷ ªº ßẞ ĳĲ ﬁﬂ İıſK Å ώΏ ᾼᾳ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒜𝓫 ⒶⓑⅧⅷ",
]
alphabet = "aZé日'\n\r \t1½.!/_sStTlLvVeErRdDmM\u0301\u00a0\u3000👍Ǆǅʰ"
texts += ["".join(rng.choice(alphabet) for _ in range(rng.randint(5, 60))) for _ in range(200)]
special = "One.<|endoftext|>Two <|endofprompt|>\n<|endoftext|><|endoftext|> x<|endoftext"

out = {"tiktoken": version("tiktoken"), "texts": texts, "special_text": special, "ids": {}, "special_ids": {}, "n_vocab": {}}
for name, encoding in encodings.items():
    out["ids"][name] = [encoding.encode_ordinary(text) for text in texts]
    for text, ids in zip(texts, out["ids"][name]):
        assert encoding.decode(ids) == text
    out["special_ids"][name] = encoding.encode(special, allowed_special="all")
    out["n_vocab"][name] = encoding.n_vocab
path = pathlib.Path(__file__).with_name("tiktoken_ids.json")
path.write_text(json.dumps(out, ensure_ascii=True, separators=(",", ":")) + "\n")
print(len(texts), "texts,", path.stat().st_size, "bytes")
