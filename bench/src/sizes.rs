//! `--all-sizes`: the same measurement for messages of many sizes, a report each.

/// Eight bytes to a megabyte.
pub(crate) const ALL: [usize; 10] =
    [8, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Which sizes to measure.
pub(crate) fn chosen(all: bool, one: usize) -> Vec<usize> {
    if all { ALL.to_vec() } else { vec![one] }
}
