"""What can be chosen from a repository's files."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.catalog import FileRole, HubFile, IgnoredReason
from router.hub.variants import quantization_of, read_contents

REPO = "owner/name-GGUF"


def listed(*paths: str, size: int = 1000) -> list[HubFile]:
    return [HubFile(path, size, f"{number:064x}") for number, path in enumerate(paths)]


@pytest.mark.parametrize(
    ("path", "quantization"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("gemma-3-4b-it-q4_0.gguf", "Q4_0"),
        ("Mistral-7B-Instruct-v0.3.IQ3_XXS.gguf", "IQ3_XXS"),
        ("Mistral-7B-Instruct-v0.3.fp16.gguf", "FP16"),
        ("model.i1-Q2_K_S.gguf", "Q2_K_S"),
        ("phi-2_Q5_K_S.gguf", "Q5_K_S"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "MXFP4"),
        ("Qwen3-Coder-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("Nemotron-NVFP4.gguf", "NVFP4"),
        ("bitnet-TQ2_0.gguf", "TQ2_0"),
        ("BF16/Qwen3-30B-A3B-BF16-00002-of-00002.gguf", "BF16"),
        ("Llama-3-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("f16.gguf", "F16"),
        ("Q8_0/model.gguf", "Q8_0"),
        ("Qwen2.5-F32-tuned-Q6_K_L.gguf", "Q6_K_L"),
        ("tinyllama.gguf", ""),
        ("Q-bert-7B-chat.gguf", ""),
        ("model-v2.gguf", ""),
    ],
)
def test_quantization_is_read_from_the_name(path: str, quantization: str) -> None:
    assert quantization_of(path) == quantization


def test_shards_are_one_variant_with_the_total_size() -> None:
    files = listed(*(f"Q8_0/m-Q8_0-0000{n}-of-00003.gguf" for n in (3, 1, 2)))

    contents = read_contents(REPO, files)

    (variant,) = contents.variants
    assert variant.filename == "Q8_0/m-Q8_0-00001-of-00003.gguf"
    assert [file.path[-19:-14] for file in variant.files] == ["00001", "00002", "00003"]
    assert variant.size_bytes == 3000
    assert variant.quantization == "Q8_0"


def test_an_incomplete_set_of_shards_is_not_listed_and_says_so() -> None:
    files = listed("m-Q8_0-00001-of-00003.gguf", "m-Q8_0-00003-of-00003.gguf", "m-Q4_0.gguf")

    contents = read_contents(REPO, files)

    assert [v.filename for v in contents.variants] == ["m-Q4_0.gguf"]
    assert {(i.path, i.reason) for i in contents.ignored} == {
        ("m-Q8_0-00001-of-00003.gguf", IgnoredReason.INCOMPLETE),
        ("m-Q8_0-00003-of-00003.gguf", IgnoredReason.INCOMPLETE),
    }
    assert contents.ignored[0].detail == "1 of 3 shards are missing"


def test_sets_of_the_same_name_in_two_folders_are_two_variants() -> None:
    files = listed(*(f"{d}/m-{n:05}-of-00002.gguf" for d in ("Q4_K_M", "Q8_0") for n in (1, 2)))

    contents = read_contents(REPO, files)

    assert [v.quantization for v in contents.variants] == ["Q4_K_M", "Q8_0"]


def test_a_shard_beyond_its_own_count_is_unusable() -> None:
    contents = read_contents(REPO, listed("m-00003-of-00002.gguf", "m-00000-of-00002.gguf"))

    assert contents.variants == ()
    assert {i.reason for i in contents.ignored} == {IgnoredReason.UNUSABLE}


def test_the_projector_in_the_nearest_folder_goes_with_the_model() -> None:
    files = listed("mmproj-F16.gguf", "big/mmproj-F32.gguf", "big/big-Q8_0.gguf", "small-Q8_0.gguf")

    big, small = read_contents(REPO, files).variants

    assert [(f.path, f.role) for f in big.files] == [
        ("big/big-Q8_0.gguf", FileRole.MODEL),
        ("big/mmproj-F32.gguf", FileRole.MMPROJ),
    ]
    assert small.files[-1].path == "mmproj-F16.gguf"


def test_of_several_projectors_the_nearest_precision_wins() -> None:
    files = listed("mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf", "m-Q4_K_M.gguf")

    (variant,) = read_contents(REPO, files).variants

    assert variant.files[-1].path == "mmproj-Q8_0.gguf"


def test_a_projector_of_another_folder_is_not_taken() -> None:
    files = listed("vision/mmproj-F16.gguf", "m-Q4_K_M.gguf")

    contents = read_contents(REPO, files)

    assert len(contents.variants[0].files) == 1
    assert [(i.path, i.reason) for i in contents.ignored] == [
        ("vision/mmproj-F16.gguf", IgnoredReason.COMPANION)
    ]


@pytest.mark.parametrize(
    "path",
    ["imatrix.gguf", "mtp-m-Q4_0.gguf", "eagle3-m.gguf", "x/dflash-m-BF16.gguf", "dspark-m.gguf"],
)
def test_companions_are_not_models(path: str) -> None:
    contents = read_contents(REPO, listed(path, "m-Q4_0.gguf"))

    assert [v.filename for v in contents.variants] == ["m-Q4_0.gguf"]
    assert contents.ignored[0].reason is IgnoredReason.COMPANION


@pytest.mark.parametrize("path", ["m.gguf-split-a", "m.Q8_0.gguf.part1of2", "m.gguf.001"])
def test_parts_cut_by_other_tools_are_unusable(path: str) -> None:
    contents = read_contents(REPO, listed(path))

    assert contents.variants == ()
    assert contents.ignored[0].reason is IgnoredReason.UNUSABLE


@pytest.mark.parametrize(
    "path", ["../m-Q4_0.gguf", "a//m.gguf", "/m.gguf", "a\\m.gguf", "m\n.gguf"]
)
def test_a_name_that_could_lead_elsewhere_is_unusable(path: str) -> None:
    contents = read_contents(REPO, listed(path))

    assert contents.variants == ()
    assert contents.ignored[0].reason is IgnoredReason.UNUSABLE
    assert contents.ignored[0].path.isprintable()


def test_an_empty_file_is_not_a_model() -> None:
    assert read_contents(REPO, listed("m-Q4_0.gguf", size=0)).variants == ()


def test_a_repository_of_weights_can_be_converted() -> None:
    files = listed(
        "README.md",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "tokenizer.json",
        "original/consolidated.00.pth",
    )

    contents = read_contents(REPO, files)

    assert [(f.path, f.role) for f in contents.conversion_files] == [
        ("model-00001-of-00002.safetensors", FileRole.WEIGHTS),
        ("model-00002-of-00002.safetensors", FileRole.WEIGHTS),
        ("config.json", FileRole.CONFIG),
        ("model.safetensors.index.json", FileRole.CONFIG),
        ("tokenizer.json", FileRole.CONFIG),
    ]


@pytest.mark.parametrize(
    "paths",
    [
        ("model.safetensors",),
        ("config.json", "model-00001-of-00002.safetensors"),
        ("config.json", "adapter_model.safetensors"),
        ("config.json", "model.safetensors", "m-Q4_0.gguf"),
    ],
)
def test_what_is_not_whole_or_already_gguf_is_not_converted(paths: tuple[str, ...]) -> None:
    assert read_contents(REPO, listed(*paths)).conversion_files == ()


# --- whatever a repository holds ---

QUANTIZATIONS = ["Q4_K_M", "Q8_0", "UD-Q4_K_XL", "IQ2_XXS", "BF16", "F16", "MXFP4", "TQ1_0"]
stems = st.sampled_from(["Qwen3-8B", "gemma-3-27b-it", "Llama-3.3-70B-Instruct", "m.v2"])
folders = st.sampled_from(["", "", "UD-Q4_K_XL/", "BF16/", "a/b/"])


@st.composite
def whole_models(draw: st.DrawFn) -> list[str]:
    """The paths of one model as unsloth, bartowski, ggml-org and MaziyarPanahi name them."""
    stem, quantization = draw(stems), draw(st.sampled_from(QUANTIZATIONS))
    base = f"{draw(folders)}{stem}{draw(st.sampled_from('-.'))}{quantization}"
    shards = draw(st.sampled_from([1, 1, 1, 2, 5]))
    if shards == 1:
        return [f"{base}.gguf"]
    return [f"{base}-{n:05}-of-{shards:05}.gguf" for n in range(1, shards + 1)]


others = st.sampled_from(
    [
        "README.md",
        ".gitattributes",
        "config.json",
        "imatrix_unsloth.dat",
        "imatrix.gguf",
        "mmproj-F16.gguf",
        "mmproj-BF16.gguf",
        "mtp-Qwen3-8B-Q8_0.gguf",
        "figures/a.png",
    ]
)


@given(st.lists(whole_models(), max_size=12), st.lists(others, max_size=6), st.randoms())
def test_every_whole_model_is_one_variant_whatever_lies_beside_it(
    models: list[list[str]], beside: list[str], random: Random
) -> None:
    distinct = {tuple(model) for model in models}
    paths = sorted({path for model in distinct for path in model} | set(beside))
    random.shuffle(paths)

    contents = read_contents(REPO, listed(*paths, size=7))

    found = {
        tuple(f.path for f in v.files if f.role is FileRole.MODEL): v for v in contents.variants
    }
    assert set(found) == distinct
    assert all(v.quantization in QUANTIZATIONS for v in found.values())
    assert all(v.size_bytes == 7 * len(v.files) for v in found.values())
    assert [v.filename for v in contents.variants] == sorted(v.filename for v in found.values())


@given(st.lists(whole_models(), min_size=1, max_size=8), st.data())
def test_taking_a_shard_away_never_leaves_a_smaller_variant(
    models: list[list[str]], data: st.DataObject
) -> None:
    paths = sorted({path for model in models for path in model})
    lost = data.draw(st.sampled_from(paths))

    contents = read_contents(REPO, listed(*(path for path in paths if path != lost)))

    whole = {tuple(m) for m in models if lost not in m}
    assert {tuple(f.path for f in v.files) for v in contents.variants} == whole


@given(st.lists(st.text(max_size=40), max_size=30), st.booleans())
def test_no_file_name_makes_reading_fail_or_slip_through(names: list[str], gguf: bool) -> None:
    paths = [f"{name}.gguf" if gguf else name for name in names]

    contents = read_contents(REPO, listed(*paths))

    chosen = [f.path for v in contents.variants for f in v.files]
    assert len(chosen) == len(set(chosen))
    assert all(".." not in path.split("/") and path.isprintable() for path in chosen)
