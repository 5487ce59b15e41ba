//! The state hash: a sum over the pairs, hence always current and the same for every tree shape.
//!
//! Each pair contributes SHA-256 over the secret and the canonical encoding of the pair; contributions add up modulo
//! 2^256 (the AdHash of Bellare and Micciancio, "A new paradigm for collision-free hashing", 1997). Addition commutes,
//! so neither the order of writes nor the shape of the tree shows in the sum: a replica restored from a checkpoint
//! agrees with one that replayed the log. It has an inverse, so that a write costs one hash, and the sum of a key range
//! is a difference of two sums.
//!
//! Who knows the secret can find pairs with equal sums (a generalised birthday attack), so the secret must not be known
//! to those who choose keys. Contributions may be: the canonical encoding tells its own length, hence no encoding
//! extends another, and a length extension of SHA-256 is never one.
//!
//! ```text
//!  0            32        40        48       52           60          64            68
//!  +------------+---------+---------+--------+------------+-----------+-------------+-------+---------+
//!  |   secret   | created | index   | op     | deadline   | key bytes | value bytes |  key  |  value  |
//!  +------------+---------+---------+--------+------------+-----------+-------------+-------+---------+
//!      32           u64       u64      u32       u64           u32         u32
//! ```
//!
//! All integers are little-endian; `index` and `op` are the version of the pair; a deadline of 0 is none.
//!
//! What else apply reads is state too, and hashed with count and sum: the clock and the memory limit.
//!
//! ```text
//! state hash := SHA-256( domain  count:u64  sum:32  clock_ms:u64  limited:u8 (0|1)  limit_bytes:u64 )
//! ```

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use sha2::{Digest as _, Sha256};

use crate::pair::PairRef;

/// Sets the published hash apart from every other use of SHA-256.
const STATE_HASH_DOMAIN: &[u8] = b"kv-store state hash, version 2\0";

/// Bytes hashed before the key: the secret and the fixed fields.
const PREFIX_BYTES: usize = 68;

/// What keeps clients from choosing pairs whose contributions cancel out.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What `pair` under `key` adds to the sum.
    pub(crate) fn contribution(&self, key: &[u8], pair: &PairRef<'_>) -> Sum {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..32].copy_from_slice(&self.0);
        prefix[32..40].copy_from_slice(&pair.created.get().to_le_bytes());
        prefix[40..48].copy_from_slice(&pair.version.index.get().to_le_bytes());
        prefix[48..52].copy_from_slice(&pair.version.op.to_le_bytes());
        prefix[52..60].copy_from_slice(&pair.deadline_ms.unwrap_or(0).to_le_bytes());
        prefix[60..64].copy_from_slice(&(key.len() as u32).to_le_bytes());
        prefix[64..68].copy_from_slice(&(pair.value.len() as u32).to_le_bytes());
        let hash = Sha256::new().chain_update(prefix).chain_update(key).chain_update(pair.value).finalize();
        Sum::from_bytes(hash.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A number modulo 2^256: the contribution of a pair, or the sum of many.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Sum([u64; 4]);

impl Sum {
    /// The sum of no pairs.
    pub const ZERO: Sum = Sum([0; 4]);

    /// The number with these little-endian bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let (limbs, _) = bytes.as_chunks::<8>();
        Sum(std::array::from_fn(|i| u64::from_le_bytes(limbs[i])))
    }

    /// Little-endian bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }
}

impl Add for Sum {
    type Output = Sum;

    fn add(self, other: Sum) -> Sum {
        let mut carry = false;
        Sum(std::array::from_fn(|i| {
            let (limb, over) = self.0[i].carrying_add(other.0[i], carry);
            carry = over;
            limb
        }))
    }
}

impl Sub for Sum {
    type Output = Sum;

    fn sub(self, other: Sum) -> Sum {
        let mut borrow = false;
        Sum(std::array::from_fn(|i| {
            let (limb, under) = self.0[i].borrowing_sub(other.0[i], borrow);
            borrow = under;
            limb
        }))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hexadecimal, least significant byte first.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What is known of a set of pairs without looking at them: how many, how large, and the sum of their contributions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangeDigest {
    /// How many pairs.
    pub count: u64,
    /// Bytes of their keys and values together.
    pub bytes: u64,
    /// Sum of their contributions, modulo 2^256.
    pub sum: Sum,
}

impl RangeDigest {
    /// The digest of one pair.
    pub(crate) fn of_one(key_bytes: usize, value_bytes: usize, contribution: Sum) -> Self {
        RangeDigest { count: 1, bytes: (key_bytes + value_bytes) as u64, sum: contribution }
    }

    /// This set without `part`; `None` if `part` cannot be a part of it.
    pub fn checked_sub(self, part: RangeDigest) -> Option<RangeDigest> {
        let count = self.count.checked_sub(part.count)?;
        let bytes = self.bytes.checked_sub(part.bytes)?;
        Some(RangeDigest { count, bytes, sum: self.sum - part.sum })
    }
}

/// The published hash of a state: of its pairs, and of what else apply reads.
pub(crate) fn state_hash(pairs: &RangeDigest, clock_ms: u64, memory_limit_bytes: Option<u64>) -> [u8; 32] {
    Sha256::new()
        .chain_update(STATE_HASH_DOMAIN)
        .chain_update(pairs.count.to_le_bytes())
        .chain_update(pairs.sum.to_bytes())
        .chain_update(clock_ms.to_le_bytes())
        .chain_update([u8::from(memory_limit_bytes.is_some())])
        .chain_update(memory_limit_bytes.unwrap_or(0).to_le_bytes())
        .finalize()
        .into()
}

impl AddAssign for RangeDigest {
    fn add_assign(&mut self, other: RangeDigest) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.sum = self.sum + other.sum;
    }
}

impl SubAssign for RangeDigest {
    fn sub_assign(&mut self, part: RangeDigest) {
        *self = self.checked_sub(part).expect("a part of the set");
    }
}

impl std::iter::Sum for RangeDigest {
    fn sum<I: Iterator<Item = RangeDigest>>(parts: I) -> Self {
        parts.fold(RangeDigest::default(), |mut whole, part| {
            whole += part;
            whole
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Version;
    use kv_wal::Index;
    use proptest::prelude::*;

    fn pair(value: &'static [u8]) -> PairRef<'static> {
        let version = Version { index: Index::new(0x0102_0304_0506_0708), op: 0x090a_0b0c };
        let created = Index::new(0x1112_1314_1516_1718);
        PairRef::new(value, version, created, Some(0x2122_2324_2526_2728))
    }

    /// The picture above, byte by byte. If this fails, replicas of different builds disagree.
    #[test]
    fn contribution_hashes_the_canonical_encoding() {
        let mut encoding = vec![7; 32];
        encoding.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        encoding.extend([0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01]);
        encoding.extend([0x0c, 0x0b, 0x0a, 0x09]);
        encoding.extend([0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
        encoding.extend([3, 0, 0, 0, 5, 0, 0, 0]);
        encoding.extend(b"keyvalue");
        let expected = Sum::from_bytes(Sha256::digest(&encoding).into());
        // "keyvalue" split after 3 and 5 bytes: the lengths are part of what is hashed.
        assert_eq!(Secret::new([7; 32]).contribution(b"key", &pair(b"value")), expected);
        assert_ne!(Secret::new([7; 32]).contribution(b"keyv", &pair(b"alue")), expected);
        assert_ne!(Secret::new([8; 32]).contribution(b"key", &pair(b"value")), expected);
        let mut for_ever = pair(b"value");
        for_ever.deadline_ms = None;
        assert_ne!(Secret::new([7; 32]).contribution(b"key", &for_ever), expected);
    }

    #[test]
    fn the_state_hash_covers_all_that_apply_reads() {
        let pairs = RangeDigest { count: 2, bytes: 9, sum: Sum([1, 2, 3, 4]) };
        let mut encoding = b"kv-store state hash, version 2\0".to_vec();
        encoding.extend(2u64.to_le_bytes());
        encoding.extend(pairs.sum.to_bytes());
        encoding.extend(7u64.to_le_bytes());
        encoding.push(1);
        encoding.extend(5u64.to_le_bytes());
        let expected: [u8; 32] = Sha256::digest(&encoding).into();
        assert_eq!(state_hash(&pairs, 7, Some(5)), expected);
        assert_ne!(state_hash(&pairs, 8, Some(5)), expected);
        assert_ne!(state_hash(&pairs, 7, Some(0)), state_hash(&pairs, 7, None));
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let one = Sum([1, 0, 0, 0]);
        assert_eq!(Sum([u64::MAX; 4]) + one, Sum::ZERO);
        assert_eq!(Sum::ZERO - one, Sum([u64::MAX; 4]));
        assert_eq!(Sum([u64::MAX, u64::MAX, 4, 9]) + one, Sum([0, 0, 5, 9]));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([0xAB; 32])), "Secret(..)");
    }

    proptest! {
        #[test]
        fn sums_are_a_commutative_group(a in any::<[u64; 4]>(), b in any::<[u64; 4]>(), c in any::<[u64; 4]>()) {
            let (a, b, c) = (Sum(a), Sum(b), Sum(c));
            prop_assert_eq!(a + b, b + a);
            prop_assert_eq!((a + b) + c, a + (b + c));
            prop_assert_eq!(a + b - b, a);
            prop_assert_eq!(Sum::from_bytes(a.to_bytes()), a);
        }
    }
}
