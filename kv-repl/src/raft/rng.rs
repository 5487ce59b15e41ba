//! Random numbers that are the same in every run with the same seed: splitmix64 (Steele, Lea, Flood 2014). Election
//! timeouts need no more than numbers that differ between nodes.

use std::time::Duration;

pub(super) struct Rng {
    state: u64,
}

impl Rng {
    /// Numbers that depend on every one of `seeds`.
    pub(super) fn new(seeds: &[u64]) -> Rng {
        let mut rng = Rng { state: 0 };
        for seed in seeds {
            rng.state = rng.next() ^ seed;
        }
        rng
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time of at least `min` and less than `max`.
    pub(super) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let width = u64::try_from((max - min).as_nanos()).unwrap_or(u64::MAX).max(1);
        min + Duration::from_nanos(self.next() % width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_sequence_of_splitmix64() {
        let mut rng = Rng { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([rng.next(), rng.next(), rng.next()], expected);
    }

    #[test]
    fn between_stays_between_and_differs_by_node() {
        let (min, max) = (Duration::from_millis(500), Duration::from_secs(1));
        let draw = |node| {
            let mut rng = Rng::new(&[0, node]);
            (0..100).map(|_| rng.between(min, max)).collect::<Vec<_>>()
        };
        assert!(draw(1).iter().all(|time| *time >= min && *time < max));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(1), draw(1));
    }
}
