"""The token is found under its name, and under its old one with a warning."""

import pytest

from flaretune.model_server.connection import token_of_environment


@pytest.mark.parametrize(
    ("environment", "token", "warned"),
    [
        ({}, "", False),
        ({"FLARETUNE_MODEL_SERVER_TOKEN": "new"}, "new", False),
        ({"FLARETUNE_LM_TOKEN": "old"}, "old", True),
        ({"FLARETUNE_MODEL_SERVER_TOKEN": "new", "FLARETUNE_LM_TOKEN": "old"}, "new", False),
    ],
)
def test_names_of_the_variable(monkeypatch, capsys, environment, token, warned):
    for name in ("FLARETUNE_MODEL_SERVER_TOKEN", "FLARETUNE_LM_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert token_of_environment() == token
    said = capsys.readouterr().err
    assert said.count("\n") == int(warned)
    assert ("FLARETUNE_LM_TOKEN is now called FLARETUNE_MODEL_SERVER_TOKEN" in said) == warned
