"""Which variant a person means."""

import pytest

from router.domain.catalog import CatalogRepo, Gating, HubFile, Variant
from router.domain.choice import choose
from router.domain.errors import FileNotInRepo, IncompleteShards
from router.hub.variants import read_contents

REPO = "owner/name-GGUF"


def repository(*paths: str) -> CatalogRepo:
    contents = read_contents(REPO, [HubFile(path, 10) for path in paths])
    return CatalogRepo(
        REPO,
        "0" * 40,
        None,
        0,
        0,
        (),
        Gating.OPEN,
        False,
        None,
        None,
        contents.variants,
        ignored=contents.ignored,
    )


def chosen(variant: Variant) -> str:
    return variant.filename


def test_without_a_wish_it_is_q4_k_m() -> None:
    assert chosen(choose(repository("m-BF16.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"))) == (
        "m-Q4_K_M.gguf"
    )


def test_without_q4_k_m_it_is_q8_0_and_else_the_first() -> None:
    assert chosen(choose(repository("m-BF16.gguf", "m-Q8_0.gguf"))) == "m-Q8_0.gguf"
    assert chosen(choose(repository("m-F16.gguf", "m-BF16.gguf"))) == "m-BF16.gguf"


def test_a_quantization_is_found_in_any_case_and_in_folders() -> None:
    repo = repository("Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf")

    assert chosen(choose(repo, quantization="q8_0")) == "Q8_0/m-Q8_0-00001-of-00002.gguf"


def test_the_exact_quantization_goes_before_a_longer_one() -> None:
    repo = repository("A-UD-IQ4_XS.gguf", "m-IQ4_XS.gguf")

    assert chosen(choose(repo, quantization="IQ4_XS")) == "m-IQ4_XS.gguf"
    assert chosen(choose(repo, quantization="UD-IQ4_XS")) == "A-UD-IQ4_XS.gguf"


def test_a_tag_may_be_any_part_of_the_name_before_a_dot_or_hyphen() -> None:
    repo = repository("m-UD-Q4_K_XL.gguf", "m-it-qat-Q4_0.gguf")

    assert chosen(choose(repo, quantization="Q4_K_XL")) == "m-UD-Q4_K_XL.gguf"
    assert chosen(choose(repo, quantization="qat")) == "m-it-qat-Q4_0.gguf"


def test_a_file_of_a_set_means_the_whole_set() -> None:
    repo = repository("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")

    assert chosen(choose(repo, path="m-00002-of-00002.gguf")) == "m-00001-of-00002.gguf"


@pytest.mark.parametrize("wish", [{"path": "m-Q8_0-00001-of-00002.gguf"}, {"quantization": "Q8_0"}])
def test_an_incomplete_set_is_refused_by_name(wish: dict[str, str]) -> None:
    repo = repository("m-Q8_0-00001-of-00002.gguf", "m-Q4_0.gguf")

    with pytest.raises(IncompleteShards, match="1 of 2 shards are missing"):
        choose(repo, **wish)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"path": "other.gguf"}, "no GGUF model"),
        ({"path": "imatrix.gguf"}, "importance matrix"),
        ({"path": "mmproj-F16.gguf"}, "no GGUF model"),
        ({"quantization": "Q2_K"}, "there are Q4_0"),
        ({"quantization": "mmproj"}, "there are Q4_0"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(wish: dict[str, str], words: str) -> None:
    repo = repository("m-Q4_0.gguf", "imatrix.gguf", "mmproj-F16.gguf")

    with pytest.raises(FileNotInRepo, match=words):
        choose(repo, **wish)


def test_a_repository_without_gguf_has_nothing_to_choose() -> None:
    with pytest.raises(FileNotInRepo, match="has no GGUF file"):
        choose(repository("model.safetensors"))
