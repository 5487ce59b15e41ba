//! When an op happens, and what it does to a deadline.

use kv_wal::Index;

use crate::pair::Version;

/// When a put happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Whether or not the key is present.
    #[default]
    Always,
    /// Only if the key is absent.
    IfAbsent,
    /// Only if the key is present.
    IfPresent,
    /// Only if the key is present and has this value.
    IfValue(&'a [u8]),
    /// Only if this is the last write of the key. An absent key has version 0.0.
    IfVersion(Version),
}

/// What a put does to the deadline of its key. Deadlines are in milliseconds of the replicated clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// The pair does not expire.
    #[default]
    None,
    /// The deadline stays what it is; a key that was absent has none.
    Keep,
    /// The pair expires then. If that has passed already, the pair is written and gone: the key is absent afterwards.
    At(u64),
}

/// When a put of many keys happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PutManyCondition {
    /// Whether or not keys are present.
    #[default]
    Always,
    /// Only if none of the keys is present.
    IfNonePresent,
}

/// When a deadline is set. The pair must be present in any case. No deadline counts as later than every deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeadlineCondition {
    /// Whether or not the pair has a deadline.
    #[default]
    Always,
    /// Only if it has none.
    IfNone,
    /// Only if it has one.
    IfAny,
    /// Only if the new one is later.
    IfLater,
    /// Only if the new one is earlier.
    IfEarlier,
}

/// A condition of a transaction: `target` of the pair of `key` stands in this `relation` to the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What is compared, and with what.
    pub target: Target<'a>,
    /// How the pair stands to the operand.
    pub relation: Relation,
}

/// What of a pair is compared, with the operand. An absent key has version 0.0 and creation index 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The value, in byte order. With an absent key no such comparison holds, `NotEqual` neither.
    Value(&'a [u8]),
    /// The last write.
    Version(Version),
    /// The entry that made the key.
    Created(Index),
    /// Whether the key is present: 1 if it is and 0 if not, compared with 1. `Equal` holds for a present key, `NotEqual`
    /// for an absent one.
    Present,
}

/// How what is there stands to the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Both are the same.
    Equal,
    /// They differ.
    NotEqual,
    /// What is there is less.
    Less,
    /// What is there is greater.
    Greater,
}

/// What becomes of a transaction of which an op cannot be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// Nothing of the transaction is done. Outcome `Failed`.
    #[default]
    Undo,
    /// The others are done (as in Redis: EXEC). The outcome of the op stands among the others.
    GoOn,
}
