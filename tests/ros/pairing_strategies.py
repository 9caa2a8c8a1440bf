"""Settings of pairing that Hypothesis draws for more than one test module."""

from hypothesis import strategies as st

MS = 1_000_000  # nanoseconds

TOLERANCES = {
    "slop": st.integers(0, 60 * MS),
    "visible_offset": st.integers(-50 * MS, 50 * MS),
    "thermal_offset": st.integers(-50 * MS, 50 * MS),
    "capacity": st.integers(1, 5),
    "jump": st.integers(1, 200 * MS),
}
