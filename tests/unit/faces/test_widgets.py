import base64

from dcde import errors
from dcde.widgets import LaunchForm

from tests.unit.faces.conftest import PNG, run, step

SCHEMA = {
    "type": "object",
    "properties": {
        "voltage": {
            "type": "number",
            "title": "Voltage",
            "default": 300,
            "minimum": 60,
            "maximum": 400,
            "x-unit": "kV",
            "x-order": 2,
        },
        "movies": {"type": "string", "title": "Movies", "default": "bnl:m/*.mrcs", "x-order": 1},
        "gain": {"type": "string", "title": "Gain", "x-order": 3},
        "fast": {"type": "boolean", "title": "Fast", "default": True, "x-order": 4},
        "classes": {"type": "integer", "title": "Classes", "default": 4, "x-order": 5, "x-group": "advanced"},
    },
}
SHOWN = {
    "name": "first-look", "title": "<b>First look", "description": "x", "schema": SCHEMA,
    "steps": [{"id": "class2d", "title": "Class2D", "default_site": "anl-lcrc"}],
}  # fmt: skip


def test_the_form_launches_and_its_view_follows_to_the_pictures(scripted):
    scripted.answers = {
        "templates.show": SHOWN,
        "sites.list": [{"name": "anl-lcrc", "title": "ANL LCRC"}],
        "runs.launch": run("running", [step("class2d", "running")]),
        "runs.show": run(steps=[step("class2d", pictures=[{"name": "classes", "title": "<i>Classes"}])]),
        "runs.picture": {"png_base64": PNG, "title": "<i>Classes"},
    }
    form = LaunchForm("first-look")
    assert "<b>First" not in form.children[0].value
    assert form.parameters == {"movies": "bnl:m/*.mrcs", "voltage": 300, "fast": True, "classes": 4}
    assert form.sites == {"class2d": "anl-lcrc"}
    form.launch()
    view = form._view.children[0]
    view.wait(30)
    (box,) = view._pictures.children
    assert bytes(box.children[0].value) == base64.b64decode(PNG)
    assert "<i>" not in box.children[1].value


def test_an_error_is_shown_and_what_was_entered_stays(scripted):
    refusal = errors.InvalidParameter("Voltage must be between 60 and 400 kV.")
    scripted.answers = {"templates.show": SHOWN, "sites.list": [], "runs.launch": refusal}
    form = LaunchForm("first-look")
    form._fields["voltage"].value = 200
    assert form.launch() is None
    assert "between 60 and 400 kV" in form._said.value
    assert form.parameters["voltage"] == 200
