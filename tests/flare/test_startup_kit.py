import json

import pytest

from flaretune.errors import UserError
from flaretune.flare.startup_kit import administrator_of


def kit(folder, text):
    (folder / "startup").mkdir()
    (folder / "startup" / "fed_admin.json").write_text(text, encoding="utf-8")
    return folder


def test_a_kit_knows_whose_it_is(tmp_path):
    values = {"format_version": 1, "admin": {"project_name": "reviews", "username": "anna@coordinator.example"}}
    assert administrator_of(kit(tmp_path, json.dumps(values))) == "anna@coordinator.example"


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no administrator's startup kit: startup/fed_admin.json cannot be read"):
        administrator_of(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"admin": {"username": ""}}', '{"admin": {"username": 3}}'])
def test_a_damaged_kit_is_refused(text, tmp_path):
    with pytest.raises(UserError, match="is damaged; provision the kit again"):
        administrator_of(kit(tmp_path, text))
