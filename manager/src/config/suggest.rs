//! The nearest of several words, for "did you mean".

/// The candidate nearest to `word` by edit distance, if it is near enough to be meant.
pub(crate) fn nearest(word: &str, candidates: &[&str]) -> Option<String> {
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(word.len()) / 2).max(1))
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's distance, with the swap of two neighbours counted as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let keys = ["data_dir", "cluster", "nodes", "node", "bind"];
        assert_eq!(nearest("datadir", &keys).as_deref(), Some("data_dir"));
        assert_eq!(nearest("clutser", &keys).as_deref(), Some("cluster"));
        assert_eq!(nearest("NODES", &keys).as_deref(), Some("nodes"));
        assert_eq!(nearest("quality", &keys), None);
    }

    #[test]
    fn a_swap_of_neighbours_is_one_edit() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("bind", "bind"), 0);
    }
}
