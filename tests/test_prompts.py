"""Prompts: labels, learned captions, frozen encoders; each with its null prompt and what a user may type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit import precisions

import architectures
from architectures import Captions, FeatureBatch, Features, Labels, Slots
from architectures.laws import SchemeUnderTest
from bench.config.schema import Data, Prompt
from bench.data import datasets, prompts
from bench.data import encoders as loaders
from bench.data.datasets import Dataset, Split
from bench.data.prompts import PromptError
from bench.measure.sampling import guided, with_null


def labelled() -> Dataset:
    images = np.zeros((4, 16, 16, 3), np.uint8)
    split = Split(images, np.array([0, 1, 2, 1]), None)
    return Dataset("labels", split, split, ["cat", "dog", "red fox"])


def captioned() -> Dataset:
    images = np.zeros((3, 16, 16, 3), np.uint8)
    split = Split(images, None, ["a red ring", "a blue square; night", "A ring."])
    return Dataset("captions", split, split, None)


def config(**changes) -> Prompt:
    return Prompt(**changes)


def test_auto_is_what_the_data_has(tmp_path: Path) -> None:
    assert isinstance(prompts.prepare(labelled(), config(), tmp_path).kind, Labels)
    assert isinstance(prompts.prepare(captioned(), config(), tmp_path).kind, Captions)


def test_labels(tmp_path: Path) -> None:
    prepared = prompts.prepare(labelled(), config(), tmp_path)
    assert prepared.kind == Labels(3) and prepared.rows("train", np.array([2, 0])).tolist() == [2, 0]
    assert prepared.encode(["red fox", "1"])[0].tolist() == [2, 1]
    with pytest.raises(PromptError, match="'wolf': choose one of cat, dog, red fox"):
        prepared.encode(["wolf"])


def test_labels_of_another_content_are_not_those_in_the_cache(tmp_path: Path) -> None:
    """A data set of the hub keeps its name when it changes: its images were paired with the labels of before."""
    first = labelled()
    turned = replace(first.train, labels=np.array([2, 0, 1, 0]))
    second = replace(first, train=turned, about={**first.about, "files": {"train-labels.npy": {"sha256": "other"}}})
    assert second.digest == first.digest and second.content != first.content
    rows = np.arange(len(turned.labels))
    found = [prompts.prepare(data, config(), tmp_path).rows("train", rows).tolist() for data in (first, second)]
    assert found == [first.train.labels.tolist(), turned.labels.tolist()] and found[0] != found[1]


def test_captions_are_words_padded_and_cut(tmp_path: Path) -> None:
    prepared = prompts.prepare(captioned(), config(length=3), tmp_path)
    assert isinstance(prepared.kind, Captions) and prepared.kind.length == 3
    words = prepared.meta["vocabulary"]
    assert words == ["", "?", "a", "blue", "night", "red", "ring", "square"]
    assert prepared.rows("train", np.array([2, 1])).tolist() == [[2, 6, 0], [2, 3, 7]]
    ids, unknown = prepared.encode(["a GREEN ring"])
    assert ids.tolist() == [[2, prompts.UNKNOWN, 6]] and unknown == ["green"]


def encoder(kind: Slots, width: int = 8) -> torch.nn.Module:
    return architectures.initialise(kind.encoder(width, frozenset({"tokens", "pooled"})), seed=0)


def test_slots_are_a_word_a_position() -> None:
    kind = Slots(vocabulary=10, length=3)
    encode, ids = encoder(kind), torch.tensor([[1, 4, 7], [4, 1, 7]])
    tokens, mask, pooled = encode(ids)[:3]
    assert tokens.shape == (2, 3, 8) and mask is None, "every token is attended to"
    expected = torch.nn.functional.layer_norm(encode.words(ids) + encode.positions, (8,))
    assert torch.allclose(tokens, expected, atol=1e-5) and torch.equal(pooled, tokens.mean(1))
    assert not torch.allclose(tokens[0], tokens[1][[1, 0, 2]], atol=1e-3), "a word in another slot is another token"
    null = encode(kind.null(2)).tokens
    assert torch.equal(encode(kind.drop(ids, torch.tensor([True, False]))).tokens, torch.stack([null[0], tokens[1]]))
    assert null.std(-1).min() > 0.1, "the word 0 has a vector of its own"


def test_the_words_of_a_position_are_summed_and_none_adds_nothing() -> None:
    kind = Slots(vocabulary=10, length=2, words=3)
    encode, ids = encoder(kind), torch.tensor([[[1, 5, 0], [0, 0, 0]]])
    tokens = encode(ids).tokens
    summed = encode.words.weight[1] + encode.words.weight[5] + encode.positions[0]
    assert torch.allclose(tokens[0, 0], torch.nn.functional.layer_norm(summed, (8,)), atol=1e-5)
    assert torch.equal(tokens, encode(ids.flip(2)).tokens), "their order is nothing"
    assert kind.null(4).shape == (4, 2, 3)
    assert torch.equal(kind.drop(ids, torch.tensor([True])), kind.null(1))


@pytest.mark.parametrize("kind", [Slots(10, 3), Slots(10, 3, words=2)])
def test_slots_count_as_the_prompt_and_are_guided(kind: Slots) -> None:
    model = architectures.create("adaln-zero", "DiT-XS/4", image_size=16, in_channels=3, prompt=kind, seed=0)
    assert model.parameter_split()["prompt"] == 256 * (10 + 3 + 2)
    x, ids = torch.randn(2, 3, 16, 16), torch.ones_like(kind.null(2))
    v = guided(model, 2.0)(x, torch.full((2,), 0.5), with_null(kind, ids, x, 2.0))
    assert v.shape == x.shape


def test_what_the_data_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="this data has labels"):
        prompts.prepare(labelled(), config(kind="captions"), tmp_path)
    with pytest.raises(PromptError, match="this data has captions"):
        prompts.prepare(captioned(), config(kind="labels"), tmp_path)
    with pytest.raises(PromptError, match="name prompt.encoder"):
        prompts.prepare(captioned(), config(kind="features"), tmp_path)


def test_they_are_made_once(tmp_path: Path) -> None:
    prepared = prompts.prepare(captioned(), config(), tmp_path)
    before = (prepared.folder / "train.npy").stat().st_mtime_ns
    assert prompts.prepare(captioned(), config(), tmp_path).digest == prepared.digest
    assert (prepared.folder / "train.npy").stat().st_mtime_ns == before
    (prepared.folder / "meta.json").write_text("{")
    with pytest.raises(PromptError, match="delete .* and run again"):
        prompts.load(prepared.folder)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny randomly initialised T5 and CLIP text encoders with word tokenizers, saved as a user's local folders."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [
        "<pad>",
        "</s>",
        "<unk>",
        "a",
        "photo",
        "of",
        "cat",
        "dog",
        "red",
        "fox",
        "ring",
        "blue",
        "square",
        "night",
        *("lowest", "low", "high", "highest"),
    ]
    core = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    made = {}
    for name, kind, settings in (
        (
            "t5",
            transformers.T5Model,
            transformers.T5Config(vocab_size=len(words), d_model=16, d_kv=8, d_ff=32, num_layers=4, num_heads=2),
        ),
        (
            "clip",
            transformers.CLIPTextModel,
            transformers.CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=4,
                num_attention_heads=2,
                max_position_embeddings=16,
                eos_token_id=1,
                bos_token_id=2,
                pad_token_id=0,
            ),
        ),
    ):
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        kind(settings).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[name] = folder
    return made


@pytest.mark.parametrize("name", ["t5", "clip"])
@pytest.mark.parametrize("make", [labelled, captioned])
def test_frozen_encoder_from_a_local_folder(tmp_path: Path, encoders, name: str, make) -> None:
    prepared = prompts.prepare(make(), config(kind="features", encoder=str(encoders[name]), length=8), tmp_path)
    assert prepared.kind == Features(width=16, pooled_width=16, length=8)
    batch = prepared.rows("train", np.array([0, 1]))
    assert isinstance(batch, FeatureBatch) and batch.tokens.shape == (2, 8, 16) and batch.mask.any(1).all()
    assert not torch.equal(batch.tokens[0], batch.tokens[1])
    text = "a photo of a dog" if make is labelled else "a blue square; night"
    again, unknown = prepared.encode([text])
    assert torch.allclose(again.tokens[0], batch.tokens[1], atol=2e-3) and unknown == []  # the cache is float16
    model = architectures.create(
        "adaln-zero-cross", "DiT-XS/8", image_size=16, in_channels=3, prompt=prepared.kind, seed=0
    )
    assert model(torch.zeros(2, 3, 16, 16), torch.rand(2), batch).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_prompt_that_is_typed_has_the_bits_of_the_cached_one(tmp_path: Path, encoders, layers: int) -> None:
    """Training sees features in float16; `ditbench sample` had them in float32."""
    one = config(kind="features", encoder=str(encoders["t5"]), length=8, layers=layers)
    prepared = prompts.prepare(labelled(), one, tmp_path)
    assert np.load(prepared.folder / "tokens.npy", mmap_mode="r").dtype == np.float16
    texts = [f"a photo of a {name}" for name in sorted(labelled().classes or [])]
    cached = prepared._lookup(np.arange(len(texts)))
    with precisions() as found:
        prepared.encode(texts)
    assert found == {("highest", False)}
    typed, named, numbered = (
        prepared.encode(own)[0]
        for own in (texts, sorted(labelled().classes or []), [str(k) for k in range(len(texts))])
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(typed, cached, strict=True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(named, cached, strict=True)), "a class by its name"
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(numbered, cached, strict=True)), "by its number"
    assert [part.dtype for part in typed] == [part.dtype for part in cached]


def test_an_encoder_that_was_saved_in_low_precision_computes_in_float32(tmp_path: Path, encoders) -> None:
    """T5 in bf16 gave features of eight bits, others on a CPU than on a GPU: the type is that of the file."""
    import transformers

    low, high = tmp_path / "low", tmp_path / "high"
    for folder, kind in ((low, torch.bfloat16), (high, torch.float32)):
        model = transformers.T5Model.from_pretrained(encoders["t5"]).bfloat16().to(kind)  # the same weights in both
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(encoders["t5"]).save_pretrained(folder)
    texts = ["a photo of a dog", "a red fox"]
    ours, theirs = (loaders.frozen_features(texts, str(folder), 8, lambda *_: None) for folder in (low, high))
    assert np.array_equal(ours.tokens, theirs.tokens) and np.array_equal(ours.pooled, theirs.pooled)


def test_features_beyond_float16_are_refused_by_name(tmp_path: Path, encoders, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large T5's exceed 65,504, and were infinity in the cache."""
    load = loaders._load_encoder

    def large(name: str) -> Any:
        tokenizer, model = load(name)
        model.final_layer_norm.weight.data.fill_(1e6)
        return tokenizer, model

    monkeypatch.setattr(loaders, "_load_encoder", large)
    with pytest.raises(PromptError, match=r"features of 'A ring.' are not finite in float16, which ends at 65,504"):
        prompts.prepare(captioned(), config(kind="features", encoder=str(encoders["t5"]), length=8), tmp_path)
    assert not list(tmp_path.glob("prompts/*/tokens.npy"))


def test_an_encoder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PromptError, match="nowhere"):
        prompts.prepare(captioned(), config(kind="features", encoder=str(tmp_path / "nowhere")), tmp_path)


def test_a_frozen_encoder_counts_what_it_cuts_and_does_not_know(tmp_path: Path, encoders) -> None:
    """An empty caption is the null prompt of every kind; a text that the tokenizer does not know is refused."""
    images = np.zeros((4, 16, 16, 3), np.uint8)
    split = Split(images, None, ["a red ring", "", "a zebra", "a blue square a blue square a blue square"])
    data = Dataset("frozen", split, split, None)
    prepared = prompts.prepare(data, config(kind="features", encoder=str(encoders["t5"]), length=6), tmp_path)
    about = prepared.meta["splits"]["train"]
    assert (about["cut"], about["empty"], about["unknown words"], about["unknown"]) == (1, 1, 1, ["zebra"])
    assert not prepared.rows("train", np.array([1])).mask.any() and prepared.rows("train", np.array([0])).mask.any()
    assert prepared.encode(["a zebra"])[1] == ["zebra"] and not prepared.encode([""])[0].mask.any()
    with pytest.raises(PromptError, match="'zebra quagga': no word of it is known"):
        prepared.encode(["zebra quagga"])
    assert any("such as zebra" in note for note in prepared.notes)


def test_numbers_that_are_names_are_no_places(tmp_path: Path) -> None:
    """Classes 1, 7 and 9: the prompt 2 was the third of them."""
    split = Split(np.zeros((3, 16, 16, 3), np.uint8), np.array([0, 1, 2]), None)
    prepared = prompts.prepare(Dataset("gaps", split, split, ["1", "7", "9"]), config(), tmp_path)
    assert prepared.encode(["7"])[0].tolist() == [1]
    with pytest.raises(PromptError, match="'2': choose one of 1, 7, 9"):
        prepared.encode(["2"])


def task_data(tmp_path: Path, task: str, **knobs) -> Dataset:
    return datasets.load(
        datasets.prepare(Data(source="task", task=task, words=True, heldout_count=32, **knobs), tmp_path)
    )


@pytest.mark.parametrize("name", ["t5", "clip"])
def test_a_frozen_encoder_has_every_prompt_of_a_task(tmp_path: Path, encoders, name: str) -> None:
    """Batches are sampled as they are needed, so features are looked up by the words, not by the image."""
    data, frozen = task_data(tmp_path, "tone", knobs={"factors": 2}), str(encoders[name])
    prepared = prompts.prepare(data, config(kind="features", encoder=frozen, length=8), tmp_path)
    assert prepared.kind == Features(width=16, pooled_width=16, length=8) and prepared.meta["unique"] == 16
    words = torch.from_numpy(np.array(data.heldout.words))
    batch, rows = prepared.of_words(data.task, words), prepared.rows("heldout", np.arange(32))
    assert all(torch.equal(one, other) for one, other in zip(batch, rows, strict=True))
    typed, _ = prepared.encode([data.task.text(words[3].tolist())], data.task)
    assert torch.allclose(typed.tokens[0], batch.tokens[3], atol=2e-3)
    blind = prompts.prepare(data, config(kind="features", encoder=frozen, length=8, arm="blind"), tmp_path)
    assert not blind.of_words(data.task, words).mask.any() and not blind.rows("heldout", np.arange(4)).mask.any()
    with pytest.raises(
        PromptError, match="prompt.length 3: .* has up to . tokens, and none is cut; set prompt.length="
    ):
        prompts.prepare(data, config(kind="features", encoder=frozen, length=3), tmp_path)


@pytest.mark.parametrize("name", ["t5", "clip"])
def test_layers_of_a_frozen_encoder_reach_the_blocks_that_read_them(tmp_path: Path, encoders, name: str) -> None:
    frozen, texts = str(encoders[name]), captioned()
    one = prompts.prepare(texts, config(kind="features", encoder=frozen, length=8), tmp_path)
    two = prompts.prepare(texts, config(kind="features", encoder=frozen, length=8, layers=2), tmp_path)
    assert two.kind == Features(width=16, pooled_width=16, length=8, layers=2) and one.digest != two.digest
    few, both = (kept.rows("train", np.arange(2)) for kept in (one, two))
    assert torch.equal(both.tokens[..., 16:], few.tokens), "the last is that of one alone"
    assert not torch.equal(both.tokens[..., :16], few.tokens)
    typed, _ = two.encode(["a red ring"])
    assert typed.tokens.shape == (1, 8, 32)
    other = both._replace(tokens=torch.cat([both.tokens[..., :16].flip(-1), both.tokens[..., 16:]], dim=-1))
    x, t, same = torch.ones(2, 3, 16, 16), torch.full((2,), 0.5), {}
    for read in ("last", "each"):
        model = SchemeUnderTest("sd3", {"text_layers": read}).random(two.kind)
        same[read] = torch.allclose(model(x, t, both), model(x, t, other), atol=1e-5)
    assert same == {"last": True, "each": False}
    with pytest.raises(PromptError, match="prompt.layers 5: .* has 4, and that is the most"):
        prompts.prepare(texts, config(kind="features", encoder=frozen, length=8, layers=5), tmp_path)


def test_an_encoder_that_does_not_say_how_many_layers_it_has_gives_its_last(
    tmp_path: Path, encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config that names its layers elsewhere, as one of text and images, is asked where several are kept alone."""
    tokenizer, model = loaders._load_encoder(str(encoders["t5"]))

    def silent(**given: torch.Tensor) -> Any:
        return model(**given)

    monkeypatch.setattr(loaders, "_load_encoder", lambda name: (tokenizer, silent))
    data, one = captioned(), config(kind="features", encoder=str(encoders["t5"]), length=8)
    assert prompts.prepare(data, one, tmp_path).kind == Features(width=16, pooled_width=16, length=8)


def test_features_of_more_prompts_than_fit_are_refused(tmp_path: Path, encoders) -> None:
    data = task_data(tmp_path, "facts")
    with pytest.raises(PromptError, match="features of the 2,097,152 prompts of task 'facts' need .* captions"):
        prompts.prepare(data, config(kind="features", encoder=str(encoders["t5"])), tmp_path)
