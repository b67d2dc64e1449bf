"""Templates: reading, checking and planning."""

import json

import pytest
from dcde.errors import InvalidParameter, TemplateError
from dcde.pipelines.template import load_template, load_templates

BREAD = """
format: 1
name: bread
title: Bread
version: "1.2"
description: Mix and bake.
renderer: baker
parameters:
  - {name: flour, title: Flour, type: files, group: Ingredients, help: "Where it lies.", required: true}
  - {name: salt, title: Salt, type: file, group: Ingredients, required: false, default: "bnl-sdcc:salt.txt"}
  - {name: heat, title: Heat, type: number, unit: "°C", minimum: 100, maximum: 300, default: 220, group: Oven}
  - {name: loaves, title: Loaves, type: integer, minimum: 1, default: 2}
  - {name: crust, title: Crust, type: choice, choices: [soft, hard], default: hard}
  - {name: label, title: Label, type: text, default: ""}
  - {name: fan, title: Fan, type: boolean, default: false, advanced: true}
derived:
  - {name: kelvin, formula: "heat + 273.15", unit: K}
  - {name: trays, formula: "ceil(loaves / 4)"}
raw:
  - {parameter: flour, target: Flour}
  - {parameter: salt, target: Salt}
steps:
  - id: bake
    title: Bake the dough
    type: baker.bake
    site: ornl-cades
    inputs: {dough: mix}
    settings: {heat: "=kelvin if fan else heat", trays: "=trays", mode: fast}
    resources: {cores: "=min(loaves, 4)", walltime_minutes: 20}
  - id: mix
    title: Mix the dough
    type: baker.mix
    site: bnl-sdcc
"""
GIVEN = {"flour": "bnl-sdcc:flour/*.bag"}


@pytest.fixture
def bread(baker, write):
    """The template of a good bread."""
    return load_template(write(BREAD))


def test_plan(bread):
    plan = bread.plan(GIVEN | {"loaves": 9, "fan": "yes"}, first_job=5)
    assert [step.id for step in plan.steps] == ["mix", "bake"]
    mix, bake = plan.steps
    assert (mix.job_dir, bake.job_dir) == ("Mix/job005", "Bake/job006")
    assert (mix.default_site, bake.default_site) == ("bnl-sdcc", "ornl-cades")
    assert bake.after == ["mix"]
    assert bake.inputs[0].step == "mix"
    assert bake.commands[0] == ["{program:oven}", "--heat=493.15", "--trays=3", "--mode=fast", "--o", "Bake/job006/"]
    assert (bake.resources.cores, bake.resources.walltime_minutes, bake.resources.nodes) == (4, 20, 1)
    assert [(raw.site, raw.pattern, raw.target) for raw in plan.raw] == [
        ("bnl-sdcc", "flour/*.bag", "Flour"),
        ("bnl-sdcc", "salt.txt", "Salt"),
    ]
    assert (plan.template, plan.version) == ("bread", "1.2")
    assert type(plan).model_validate_json(plan.model_dump_json()) == plan


def test_an_empty_text_leaves_an_optional_parameter_out(bread):
    plan = bread.plan(GIVEN | {"salt": ""}, first_job=1)
    assert [raw.target for raw in plan.raw] == ["Flour"]


def test_schema_of_the_form(bread):
    schema = bread.schema()
    json.dumps(schema)
    assert schema["required"] == ["flour"]
    assert schema["additionalProperties"] is False
    heat = schema["properties"]["heat"]
    assert (heat["minimum"], heat["maximum"], heat["x-unit"], heat["x-group"]) == (100, 300, "°C", "Oven")
    assert [p["x-order"] for p in schema["properties"].values()] == list(range(7))
    assert schema["properties"]["crust"]["enum"] == ["soft", "hard"]
    assert schema["properties"]["flour"]["x-kind"] == "files"
    assert schema["properties"]["fan"]["x-advanced"] is True


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("heat", 301, "Heat is 301 °C; it must be a number from 100 to 300 °C."),
        ("heat", "hot", "Heat is 'hot'; it must be a number from 100 to 300 °C."),
        ("heat", float("nan"), "Heat is nan; it must be a number from 100 to 300 °C."),
        ("heat", True, "Heat is True; it must be a number from 100 to 300 °C."),
        ("loaves", 0, "Loaves is 0; it must be a whole number of at least 1."),
        ("loaves", 1.5, "Loaves is 1.5; it must be a whole number of at least 1."),
        ("crust", "burnt", "Crust is 'burnt'; it must be one of soft, hard."),
        ("fan", "maybe", "Fan is 'maybe'; it must be true or false."),
        ("flour", None, "Flour is missing."),
        ("flour", "", "Flour is missing."),
        ("flour", 3, "Flour is 3; it must be a text."),
        ("flour", "flour/*.bag", "such as bnl-sdcc:movies/*.mrcs"),
        ("flour", "bnl-sdcc:/etc/passwd", "such as bnl-sdcc:movies/*.mrcs"),
        ("flour", "bnl-sdcc:a/../../b", "must stay below your own folder"),
        ("flour", "bnl-sdcc:a\nb", "such as bnl-sdcc:movies/*.mrcs"),
        ("salt", "bnl-sdcc:*.txt", "it must be one file, without wildcards"),
        ("label", "$(touch pwned)", "only letters, digits, blanks and"),
        ("label", "<img onerror=x>", "only letters, digits, blanks and"),
        ("label", "x" * 300, "only letters, digits, blanks and"),
    ],
)
def test_values_that_are_refused(bread, name, value, said):
    with pytest.raises(InvalidParameter) as caught:
        bread.plan(GIVEN | {name: value}, first_job=1)
    assert said in caught.value.message
    assert caught.value.where == name
    assert caught.value.remedy


def test_unknown_parameter(bread):
    with pytest.raises(InvalidParameter, match="no parameter 'sugar'") as caught:
        bread.plan(GIVEN | {"sugar": 1}, first_job=1)
    assert "heat" in caught.value.remedy


def test_texts_are_understood_as_numbers(bread):
    assert bread.check(GIVEN | {"heat": "250", "loaves": "3"})["heat"] == 250.0
    assert bread.check(GIVEN)["salt"] == "bnl-sdcc:salt.txt"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("site: bnl-sdcc", "inputs: {bread: bake}", "in a circle: bake -> mix -> bake"),
        ("site: bnl-sdcc", "after: [mix]", "in a circle: mix -> mix"),
        ("{dough: mix}", "{dough: knead}", "step 'bake' needs 'knead', but there is no such step"),
        ("id: mix", "id: bake", "two steps are called 'bake'"),
        ("baker.mix", "baker.fry", "unknown type 'baker.fry'"),
        ("renderer: baker", "renderer: os.system", "there is no renderer 'os.system'."),
        ("format: 1", "format: 2", "format"),
        ("ceil(loaves / 4)", "ceil(buns / 4)", "nothing is called buns there"),
        ("heat + 273.15", "trays + 1", "nothing is called trays there"),
        ("ceil(loaves / 4)", "__import__('os')", "an unknown function"),
        ("=trays", "=spoons", "nothing is called spoons there"),
        ("walltime_minutes: 20", "walltime_minutes: long", "must be a number or a formula"),
        ("default: 220", "default: 900", "the default of heat is not allowed"),
        ("choices: [soft, hard]", "choices: []", "has choices"),
        ("minimum: 100", "minimum: 400", "the minimum is above the maximum"),
        ("name: label", "name: heat", "two parameters or derived values are called 'heat'"),
        ("name: kelvin", "name: heat", "two parameters or derived values are called 'heat'"),
        ("parameter: flour", "parameter: heat", "no parameter 'heat' of the type file"),
        ("target: Flour", "target: ../Flour", "must stay below the project folder"),
        ("id: mix", "id: Mix it", "must be lower-case letters"),
        ("title: Bread", "tilte: Bread", "tilte"),
        ("name: bread", "name: [", "not valid YAML"),
    ],
)
def test_templates_that_cannot_be_used(baker, write, old, new, said):
    assert old in BREAD
    path = write(BREAD.replace(old, new, 1))
    with pytest.raises(TemplateError) as caught:
        load_template(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "given", "error", "said"),
    [
        ("heat + 273.15", "1 / (heat - 220)", {}, InvalidParameter, "division by zero"),
        ("mode: fast", "mode: $(reboot)", {}, TemplateError, "argument '--mode=$(reboot)' may hold"),
        ("walltime_minutes: 20", "walltime_minutes: 0", {}, TemplateError, "walltime_minutes"),
        ('"=trays"', '"=label * 2"', {"label": "a"}, TemplateError, "a text is no number"),
    ],
)
def test_plans_that_cannot_be_made(baker, write, old, new, given, error, said):
    template = load_template(write(BREAD.replace(old, new, 1)))
    with pytest.raises(error) as caught:
        template.plan(GIVEN | given, first_job=1)
    assert said in str(caught.value)


def test_a_persons_own_folder_of_templates(baker, write, tmp_path):
    write(BREAD)
    write(BREAD.replace("name: bread", "name: rolls"), "rolls")
    found = load_templates(tmp_path, tmp_path / "not-there")
    assert {"bread", "rolls"} < set(found)
    assert found["rolls"].title == "Bread"


def test_a_broken_template_does_not_hide_the_others(baker, write, tmp_path):
    write(BREAD)
    write("name: [", "broken")
    write(BREAD, "twice")
    problems = []
    assert "bread" in load_templates(tmp_path, problems=problems)
    assert len(problems) == 2
    with pytest.raises(TemplateError):
        load_templates(tmp_path)


def test_the_templates_that_come_with_the_library_can_be_used():
    for template in load_templates().values():
        assert template.schema()["properties"]
