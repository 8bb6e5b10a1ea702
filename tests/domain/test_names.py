"""The grammar of names against hostile and odd ones."""

import string
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import names

PART = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
REPOS = st.tuples(PART, PART).map("/".join)
SEGMENTS = st.text(
    st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"], exclude_characters="/\\"),
    min_size=1,
    max_size=40,
).filter(lambda text: text not in (".", ".."))
PATHS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
QUANTIZATIONS = st.sampled_from(["Q4_K_M", "IQ2_XXS", "F16", "UD-Q4_K_XL", "bf16"])

HOSTILE_PATHS = [
    "",
    "/etc/passwd",
    "../x.gguf",
    "a/../../x.gguf",
    "a/./x.gguf",
    "a//x.gguf",
    "a/",
    "..",
    ".",
    "..\\x.gguf",
    "C:\\x.gguf",
    "x\0.gguf",
    "x\n.gguf",
    "\x1b[2Jx.gguf",
    "x\u202efugg.txt",
    "x\u2028.gguf",
    "x\ud800.gguf",
    "x" * 256,
    "é" * 128,
    "/".join(["x" * 200] * 6),
]
HOSTILE_REPOS = [
    "",
    "repo",
    "/repo",
    "owner/",
    "a/b/c",
    "../..",
    "owner/..",
    "owner/re..po",
    "owner/re--po",
    "-owner/repo",
    "owner/repo.",
    "owner/%2e%2e",
    "owner/re po",
    "owner/repo\n",
    "öwner/repo",
    "owner/repo\0",
    "owner/" + "r" * 97,
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_a_hostile_path_is_refused_with_a_sentence_that_can_be_shown(path: str) -> None:
    with pytest.raises(names.InvalidName, match="is not a file of a repository") as refused:
        names.file_path(path)

    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("repo", HOSTILE_REPOS)
def test_a_hostile_repository_is_refused(repo: str) -> None:
    with pytest.raises(names.InvalidName, match="is not a repository"):
        names.repo_id(repo)


@pytest.mark.parametrize("text", ["", "..", "a..b", "a//b", "-x", "/main", "main/", "v1.", "a b"])
def test_a_hostile_revision_is_refused(text: str) -> None:
    with pytest.raises(names.InvalidName):
        names.revision(text)


@pytest.mark.parametrize("text", ["", "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "g" * 40])
def test_a_commit_is_forty_small_hex_digits_and_nothing_else(text: str) -> None:
    with pytest.raises(names.InvalidName):
        names.commit(text)


@pytest.mark.parametrize("text", ["", "Node", "-a", "a_b", "a/b", "..", "a" * 65, "a\n"])
def test_a_hostile_node_id_is_refused(text: str) -> None:
    with pytest.raises(names.InvalidName):
        names.node_id(text)


@given(st.text(max_size=300))
def test_whatever_passes_as_a_path_stays_below_the_folder_it_is_joined_to(text: str) -> None:
    try:
        path = names.file_path(text)
    except names.InvalidName:
        return
    joined = PurePosixPath("/models").joinpath(path)
    assert joined.parts[:2] == ("/", "models")
    assert ".." not in joined.parts
    assert "\0" not in path
    assert str(joined) == f"/models/{path}"


@given(st.text(max_size=200))
def test_whatever_passes_as_a_repository_is_two_plain_folder_names(text: str) -> None:
    try:
        owner, repo = names.repo_id(text).split("/")
    except names.InvalidName:
        return
    assert set(owner + repo) <= set(string.ascii_letters + string.digits + "._-")
    assert {owner, repo}.isdisjoint({".", ".."})


@given(PATHS)
def test_every_ordinary_path_passes_unchanged(path: str) -> None:
    assert names.file_path(path) == path


@given(REPOS, PATHS)
def test_an_id_is_read_back_as_what_it_was_made_of(repo: str, path: str) -> None:
    reference = names.model_reference(names.model_name(repo, path))

    assert (reference.repo, reference.path, reference.quantization) == (repo, path, None)


@given(REPOS.filter(lambda repo: not repo.startswith("hf/")), PATHS)
def test_an_id_without_its_prefix_means_the_same(repo: str, path: str) -> None:
    assert names.model_reference(f"{repo}/{path}").model_name == names.model_name(repo, path)


@given(REPOS, QUANTIZATIONS)
def test_a_quantization_is_read_with_and_without_the_prefix(repo: str, tag: str) -> None:
    expected = names.ModelReference(repo, quantization=tag)

    assert names.model_reference(f"{repo}:{tag}") == expected
    assert names.model_reference(f"hf/{repo}:{tag}") == expected


@given(st.text(max_size=100))
def test_any_text_is_a_reference_or_is_refused_by_name(text: str) -> None:
    try:
        reference = names.model_reference(text)
    except names.InvalidName:
        return
    names.repo_id(reference.repo)
    assert reference.path is None or reference.quantization is None


@given(st.permutations([("a", 1, "x"), ("b", 2, ""), ("c", 3, "z")]))
def test_a_manifest_id_does_not_depend_on_the_order_of_files(
    files: list[tuple[str, int, str]],
) -> None:
    sorted_id = names.manifest_id("o/r", "c" * 40, sorted(files))

    assert names.manifest_id("o/r", "c" * 40, files) == sorted_id
    assert names.manifest_id("o/r", "c" * 40, files[1:]) != sorted_id
