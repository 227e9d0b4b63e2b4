"""Options as fields of a pydantic model: one definition for flags, keys of files, arguments, defaults and checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from flaretune.errors import UserError, near, shown

Config = TypeVar("Config")
KINDS = {int: "a whole number", float: "a number", str: "a text"}


class OptionError(UserError):
    """Something is wrong with options; `sentences` has one for each thing, the message all of them on one line."""

    def __init__(self, sentences: Sequence[str]):
        self.sentences = list(sentences)
        numbered = " ".join(f"({number}) {sentence}" for number, sentence in enumerate(sentences, start=1))
        super().__init__(sentences[0] if len(sentences) == 1 else f"{len(sentences)} options are wrong: {numbered}")


class Options(BaseModel):
    """A set of options. It cannot be changed; `changed` makes another.

    Raises:
        OptionError: an option is unknown, of another type or out of its range, or some do not go together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())

    def __init__(self, /, **given: Any):
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise OptionError([f"--{name} {said}" for name, said in _told(type(self), given, error)]) from None
        if clashes := list(self.clashes()):
            raise OptionError(clashes)

    def clashes(self) -> Iterator[str]:
        """A sentence for all that does not go together, each option being right by itself."""
        return iter(())


@dataclass(frozen=True)
class Option:
    """What is known of one option.

    Attributes:
        name: of the field, the flag without its hyphens, and the key in a file.
        kind: int, float or str.
        help: what it does, without a full stop.
        main: whether short help shows it.
        choices: the values that it may have; empty for any within the limits.
        at_least, above, at_most: limits, or None.
    """

    name: str
    kind: type
    default: Any
    help: str
    group: str
    main: bool
    choices: tuple[Any, ...]
    at_least: float | None
    above: float | None
    at_most: float | None


def option(
    default: Any,
    help: str,
    *,
    group: str,
    main: bool = False,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A field of `Options`; choices are said by its type, a `Literal`. For the rest see `Option`."""
    extra = {"group": group, "main": main, "at_least": at_least, "above": above, "at_most": at_most}
    return Field(default, description=help, json_schema_extra=extra, ge=at_least, gt=above, le=at_most)


def options_of(config: type[Options]) -> list[Option]:
    """The options of a config, in the order of their definition."""
    return [
        Option(
            name=name,
            kind=type(field.default),
            default=field.default,
            help=field.description,
            choices=get_args(field.annotation),
            **field.json_schema_extra,
        )
        for name, field in config.model_fields.items()
    ]


def default(config: type[Options], name: str) -> Any:
    """The default of an option."""
    return config.model_fields[name].default


def defaults(config: type[Options]) -> dict[str, Any]:
    """Every option with its default."""
    return {name: field.default for name, field in config.model_fields.items()}


def build(config: type[Config], given: Mapping[str, Any]) -> Config:
    """A config, or a dataclass of settings, from the options given; names that it does not have are passed over.

    Raises:
        OptionError: see `Options`.
    """
    names = config.model_fields if issubclass(config, Options) else [item.name for item in fields(config)]
    return config(**{name: given[name] for name in names if name in given})


def build_all(given: Mapping[str, Any], *configs: type[Options]) -> list[Any]:
    """A config of each class (see `build`).

    Raises:
        OptionError: with what is wrong with any of them.
    """
    built, wrong = [], []
    for config in configs:
        try:
            built.append(build(config, given))
        except OptionError as error:
            wrong += error.sentences
    if wrong:
        raise OptionError(wrong)
    return built


def as_dict(config: Options) -> dict[str, Any]:
    """Every option with its value."""
    return dict(config)


def not_default(config: Options) -> dict[str, Any]:
    """The options that have another value than their default."""
    known = defaults(type(config))
    return {name: value for name, value in as_dict(config).items() if value != known[name]}


def split_options(given: Mapping[str, Any], *configs: type[Options]) -> list[Any]:
    """A config of each class, from options by name that each must be one of at least one class's.

    Raises:
        OptionError: see `Options`; an option is of none.
    """
    known = [name for config in configs for name in config.model_fields]
    if unknown := [name for name in given if name not in known]:
        raise OptionError([f"{name!r} is no option; {near(name, known)}" for name in unknown])
    return build_all(given, *configs)


def changed(config: Config, **values: Any) -> Config:
    """The same options but for some values.

    Raises:
        OptionError: see `Options`.
    """
    return type(config)(**{**as_dict(config), **values})


def problems(config: type[Options], values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with values of some options, each taken by itself: the option's name, and the rest of a sentence.

    Args:
        values: by name; a name that is no option's is a problem too.
    """
    try:
        BaseModel.__init__(config.__new__(config), **values)
    except ValidationError as error:
        return _told(config, values, error)
    # a Literal of pydantic takes True and 1.0 for 1
    chosen = [(item, values[item.name]) for item in options_of(config) if item.choices and item.name in values]
    return [
        (item.name, f"{shown(value)}: must be one of {', '.join(map(str, item.choices))}")
        for item, value in chosen
        if type(value) is not item.kind
    ]


def check_values(config: type[Options], values: Mapping[str, Any]) -> None:
    """Check values of some options, each taken by itself (see `problems`).

    Raises:
        OptionError: names the flags, the values and what would be right.
    """
    if found := problems(config, values):
        raise OptionError([f"--{name} {said}" for name, said in found])


def _told(config: type[Options], values: Mapping[str, Any], error: ValidationError) -> list[tuple[str, str]]:
    known = {item.name: item for item in options_of(config)}
    told = []
    for details in error.errors(include_url=False):
        name = str(details["loc"][0])
        if name in known:
            value = values.get(name)
            given = str(value) if type(value) in (known[name].kind, int, float) else shown(value)
            told.append((name, f"{given}: {_wanted(known[name], details)}"))
        else:
            told.append((name, f"is no option; {near(name, known)}"))
    return told


def _wanted(item: Option, details: ErrorDetails) -> str:
    match details["type"]:
        case "literal_error":
            return f"must be one of {', '.join(map(str, item.choices))}"
        case "greater_than_equal":
            return f"must be at least {item.at_least}"
        case "greater_than":
            return f"must be above {item.above}"
        case "less_than_equal":
            return f"must be at most {item.at_most}"
        case "finite_number":
            return "must be a finite number"
    return f"must be {KINDS[item.kind]}"
