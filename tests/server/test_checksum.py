"""Checksums of event files are those that TensorBoard computes, whatever the length."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.tracking.checksum import BLOCK, crc32c, masked

record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")

AROUND_A_BLOCK = st.integers(0, 2 * BLOCK + 5).flatmap(lambda n: st.binary(min_size=n, max_size=n))


@given(AROUND_A_BLOCK)
@example(b"")
@example(bytes(BLOCK))
@example(b"\xff" * (BLOCK + 1))
@example(b"\xff" * (BLOCK + 4))
def test_it_is_the_checksum_that_tensorboard_computes(data):
    assert masked(crc32c(data)) == record_writer.masked_crc32c(data)
