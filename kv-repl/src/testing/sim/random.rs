/// Numbers that follow from a seed: splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        kv_wal::testing::random(&mut self.0)
    }

    /// The next number below `below`, which is not 0.
    pub fn below(&mut self, below: u64) -> u64 {
        self.draw() % below
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
