from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from flaretune.data.load import is_one_file, load_split, load_texts
from flaretune.data.places import find_split
from flaretune.data.shares import Split, own_data, share_of_common_set
from flaretune.errors import UserError
from tests.tasks_for_tests import review_task


def rows(n: int) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"sentence": [f"text {i}" for i in range(n)], "label": [i % 2 for i in range(n)]})


def shards(folder: Path, split: str, n_rows: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        part = rows(n_rows).shard(count, i, contiguous=True)
        part.to_parquet(folder / f"{split}-{i:05}-of-{count:05}.parquet")


def test_rows_of_several_files_come_one_behind_the_other(tmp_path):
    shards(tmp_path, "train", 11, 3)
    split = find_split(tmp_path, "train")
    assert split.column_names() == ["sentence", "label"]
    assert split.read(["sentence"]).values == {"sentence": [f"text {i}" for i in range(11)]}
    assert split.place == f"{tmp_path}/train-00000-of-00003.parquet … train-00002-of-00003.parquet"


def test_the_folder_of_the_configuration_comes_first(tmp_path):
    shards(tmp_path / "sst2", "train", 3, 1)
    shards(tmp_path / "rte", "train", 4, 1)
    assert len(find_split(tmp_path, "train", "rte").read(["label"]).values["label"]) == 4
    with pytest.raises(UserError, match=r"has split 'train' in several folders \(rte, sst2\); give one of these"):
        find_split(tmp_path, "train")


def test_a_split_whose_name_begins_like_another_is_another(tmp_path):
    shards(tmp_path, "train-extra", 3, 1)
    shards(tmp_path, "train", 2, 1)
    assert find_split(tmp_path, "train").files == (tmp_path / "train-00000-of-00001.parquet",)


def test_a_download_that_is_not_whole(tmp_path):
    shards(tmp_path, "train", 9, 3)
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="has 2 of the 3 Parquet files of split 'train'; fetch all"):
        find_split(tmp_path, "train")


def json_lines(file: Path, texts: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"sentence": text, "label": 0}) for text in texts]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002-0123456789abcdef.parquet", "train-00001-of-00002-fedcba9876543210.parquet"],
        ["data/train-00000-of-00002-0123456789abcdef.parquet", "data/train-00001-of-00002-fedcba9876543210.parquet"],
        ["default/train/0000.parquet", "default/train/0001.parquet"],
        ["train/0000.parquet", "train/0001.parquet"],
        ["train/a.jsonl", "train/b.jsonl"],
        ["train/part-00000-27f1.jsonl", "train/part-00001-27f1.jsonl"],
        ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"],
    ],
)
def test_names_that_hubs_and_spark_give_to_the_files_of_a_split(tmp_path, names):
    for number, name in enumerate(names):
        part = tmp_path / name
        json_lines(part, [f"text {number}"])
        if part.suffix == ".parquet":
            rows(2).select([number]).to_parquet(part)
    (tmp_path / names[0]).with_name("_SUCCESS").write_text("")
    (tmp_path / names[0]).with_name(".hidden.jsonl").write_text("")
    (tmp_path / names[0]).with_name("README.md").write_text("")
    assert find_split(tmp_path, "train").read(["sentence"]).values == {"sentence": ["text 0", "text 1"]}
    with pytest.raises(UserError, match="no file of split 'test'"):
        find_split(tmp_path, "test")


def test_files_of_a_split_that_do_not_belong_together(tmp_path):
    json_lines(tmp_path / "mixed" / "train" / "a.jsonl", ["a"])
    (tmp_path / "mixed" / "train" / "b.csv").write_text("sentence,label\nb,0\n")
    with pytest.raises(UserError, match="has split 'train' in files of several formats; keep one of them"):
        find_split(tmp_path / "mixed", "train")
    for fingerprint in ("0123456789abcdef", "fedcba9876543210"):
        json_lines(tmp_path / "twice" / f"train-00000-of-00001-{fingerprint}.jsonl", ["a"])
    with pytest.raises(UserError, match="has files of split 'train' from several downloads; keep those of one"):
        find_split(tmp_path / "twice", "train")


def test_a_data_set_of_save_to_disk_without_splits_is_as_one_file(tmp_path):
    rows(40).save_to_disk(tmp_path / "all")
    rows(40).to_csv(tmp_path / "all.csv")
    spec = review_task(source={"path": str(tmp_path / "all"), "train": "train", "test": "test"})
    assert is_one_file(spec)
    split = Split(k_shot=3, n_shares=2, iid=True, alpha=1.0, seed=4, unlabelled=6)
    for place in ("all", "all.csv"):
        common = share_of_common_set(spec, str(tmp_path / place), split, 0, (0, 2))
        own = own_data(spec, str(tmp_path / place), 3, 4, True)
        assert (len(common.test), len(own.test)) == (11, 28)
    assert len(load_texts(spec, tmp_path / "all")) == 40
    with pytest.raises(UserError, match="all is one data set and has no test split"):
        load_split(spec, "test")


def test_a_split_of_save_to_disk(tmp_path):
    rows(5).save_to_disk(tmp_path / "train")
    split = find_split(tmp_path, "train")
    assert split.column_names() == ["sentence", "label"]
    assert split.read(["label"]).values == {"label": [0, 1, 0, 1, 0]}
    with pytest.raises(UserError, match=r"train has no column 'text'; its columns are \['sentence', 'label'\]"):
        split.read(["text"])
    (tmp_path / "train" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="train cannot be read as a folder of save_to_disk"):
        split.read(["label"])


def test_a_folder_that_holds_nothing_of_use(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match=r"no file of split 'test'; it needs one of test\.csv.* holds \['notes'\]"):
        find_split(tmp_path, "test")


def test_of_one_file_the_rows_that_are_not_drawn_are_the_test_data(tmp_path):
    file = tmp_path / "all.csv"
    rows(40).to_csv(file)
    spec = review_task(source={"path": str(file), "train": "train", "test": "test"})
    assert is_one_file(spec)
    assert not is_one_file(spec, str(tmp_path))
    split = Split(k_shot=3, n_shares=2, iid=True, alpha=1.0, seed=4, unlabelled=6)
    shares = [share_of_common_set(spec, None, split, i, (i, 2)) for i in range(2)]
    parts = [part.texts for share in shares for part in (share.train, share.validation, share.unlabelled, share.test)]
    found = [texts["sentence"] for part in parts for texts in part]
    assert sorted(found) == sorted(f"text {i}" for i in range(40))  # each once
    assert [len(share.test) for share in shares] == [11, 11]  # 40 − 2 · 3 · 2 − 6, in two parts
    assert load_split(spec, "train").texts[0] == {"sentence": "text 0"}
    too_many = Split(k_shot=10, n_shares=2, iid=True, alpha=1.0, seed=4)
    with pytest.raises(UserError, match=r"all\.csv: --k_shot 10 takes all 40 rows and leaves none to test on"):
        share_of_common_set(spec, None, too_many, 0, (0, 1))
