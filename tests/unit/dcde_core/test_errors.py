from dcde import errors


def all_classes(cls=errors.DcdeError):
    return [cls, *(found for child in cls.__subclasses__() for found in all_classes(child))]


def test_every_error_is_drawn_in_the_tree():
    ours = [cls for cls in all_classes() if cls.__module__ == errors.__name__]
    assert len(ours) > 20
    for cls in ours:
        assert cls.__name__ in errors.__doc__


def test_an_error_crosses_the_socket_unchanged():
    error = errors.DiskFull("No room for 3 files.", where="anl-lcrc", remedy="Remove files.")
    again = errors.error_from_json(error.to_json())
    assert type(again) is errors.DiskFull
    assert again.to_json() == error.to_json()
    assert again.retry


def test_an_unknown_code_is_a_plain_error():
    assert type(errors.error_from_json({"code": "New", "message": "x"})) is errors.DcdeError
