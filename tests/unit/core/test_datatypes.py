"""The protocol's datatypes and numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from hotswap.core.datatypes import NUMPY_OF, datatype_of


@pytest.mark.parametrize("name", sorted(set(NUMPY_OF) - {"BF16"}))
def test_every_datatype_is_found_again_in_either_byte_order(name: str) -> None:
    """A numpy array of a protocol datatype is called by that name, big-endian too."""
    assert datatype_of(NUMPY_OF[name]) == name
    assert datatype_of(NUMPY_OF[name].newbyteorder(">")) == name


@pytest.mark.parametrize("dtype", ["U3", "S3", "O"])
def test_strings_and_objects_are_bytes(dtype: str) -> None:
    """What has no fixed width travels as BYTES."""
    assert datatype_of(np.dtype(dtype)) == "BYTES"


@pytest.mark.parametrize("dtype", ["complex128", "datetime64[s]", "i4,f8"])
def test_what_the_protocol_cannot_carry_is_refused(dtype: str) -> None:
    """A sentence that names the numpy type."""
    with pytest.raises(ValueError, match="no protocol datatype"):
        datatype_of(np.dtype(dtype))
