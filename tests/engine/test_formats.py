from flaretune.engine.resume import warn_of_other_formats


def test_a_client_that_computes_in_another_number_format_than_before_is_named(caplog):
    before = {"north": "bfloat16", "south": "bfloat16", "gone": "bfloat16"}
    warn_of_other_formats(before, {"north": "bfloat16", "south": "float32", "new": "float32"})
    assert [record.getMessage() for record in caplog.records] == [
        "south computed in bfloat16 before and computes in float32 now: numbers differ a little (--dtype sets one)"
    ]
