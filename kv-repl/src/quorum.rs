//! The arithmetic of majorities. Pure: whoever calls says what each voter has reached.
//!
//! Nothing is kept between calls: versions that kept the voters sorted have been wrong (openraft #1802).

use crate::planted::{self, Mistake};

/// Voters in one set, at most.
pub(crate) const VOTERS_MAX: usize = 64;

/// The greatest of `values`, one for each voter, that a majority of the voters has reached. This is the `N` of the
/// leader's last rule in figure 2 of the Raft paper, and just as well a time or a round that a majority has reached.
///
/// # Panics
///
/// If there is no voter, or there are more than [`VOTERS_MAX`].
pub(crate) fn reached_by_majority<T: Ord + Copy>(mut values: impl Iterator<Item = T>) -> T {
    let first = values.next().expect("there is a voter");
    let (mut reached, mut count) = ([first; VOTERS_MAX], 1);
    for value in values {
        reached[count] = value;
        count += 1;
    }
    // In ascending order this one and all after it are just a majority.
    let missing = usize::from(planted::is(Mistake::QuorumOffByOne) && count > 1);
    let (_, value, _) = reached[..count].select_nth_unstable((count - 1) / 2 + missing);
    *value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn by_hand() {
        let check = |values: &[u64], expected| assert_eq!(reached_by_majority(values.iter().copied()), expected);
        check(&[7], 7);
        check(&[7, 3], 3);
        check(&[7, 3, 5], 5);
        check(&[9, 9, 0, 0], 0);
        check(&[9, 9, 9, 0], 9);
        check(&[1, 2, 3, 4, 5], 3);
    }

    proptest! {
        /// The twin tries every subset of voters that is a majority: what all its members have reached is reached.
        #[test]
        fn equals_the_best_of_all_majorities(values in proptest::collection::vec(0u64..6, 1..=7)) {
            let majorities = (1u32..1 << values.len()).filter(|set| set.count_ones() as usize > values.len() / 2);
            let reached_by_all_of = |set: u32| {
                (0..values.len()).filter(|voter| set & (1 << voter) != 0).map(|voter| values[voter]).min().unwrap()
            };
            let best = majorities.map(reached_by_all_of).max().unwrap();
            prop_assert_eq!(reached_by_majority(values.iter().copied()), best);
        }
    }
}
