import pytest

from latentserve_client.load.plan.mix import BadMix, parse_mix


def test_reads_calls_with_weights_and_options():
    encode, sample = parse_mix("encode=5:model=mnist-vae@2:dtype=png, sample=3:count=16:format=png")
    assert (encode.call, encode.weight, encode.model, encode.dtype) == (
        "encode", 5.0, "mnist-vae:2", "png",
    )  # fmt: skip
    assert (sample.call, sample.weight, sample.rows.choices, sample.format) == (
        "sample", 3.0, (16,), "png",
    )  # fmt: skip
    assert encode.label("mnist-vae:2") == "encode mnist-vae:2 rows=1 png"


def test_the_defaults():
    (entry,) = parse_mix("reconstruct")
    assert (entry.weight, entry.model, entry.rows.choices, entry.dtype) == (
        1.0, None, (1,), "float32",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("paint", "unknown call 'paint'; expected one of encode"),
        ("encode=x", "weight 'x'"),
        ("encode=0", "weight '0'"),
        ("encode=-1", "weight '-1'"),
        ("encode:count", "'count' is not an option of encode"),
        ("encode:temperature=1", "its options: draw, dtype, model, rows"),
        ("sample:count=0", "rows: '0'"),
        ("sample:format=gif", "'gif'"),
        ("encode:dtype=int8", "float32, float16, uint8, png, jpeg"),
        ("decode:dtype=uint8", "expected one of float32, float16"),
        ("sample:latents=maybe", "yes or no"),
        ("health:rows=2", "its options: none"),
        ("infer", "unknown call 'infer'"),
    ],
)
def test_errors_name_the_wrong_part_and_the_expected_syntax(text, said):
    with pytest.raises(BadMix) as caught:
        parse_mix(text)
    assert said in str(caught.value)


def test_the_open_inference_protocol_has_one_call():
    (entry,) = parse_mix("infer=2:rows=1-8", "oip")
    assert entry.rows.largest == 8
    with pytest.raises(BadMix, match="expected one of infer"):
        parse_mix("encode", "oip")
