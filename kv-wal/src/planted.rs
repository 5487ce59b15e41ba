//! Known mistakes of other logs, which tests can switch on to see that they would be found (feature `planted`). Without
//! the feature none of them is there.

#[cfg(feature = "planted")]
use std::cell::Cell;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), expect(unreachable_pub, reason = "public where tests can switch it on"))]
pub enum Mistake {
    /// A sync says that it has been done, and has not.
    NoSync,
    /// The next segment is begun without a sync of the one before.
    SealedSegmentNotSynced,
    /// The checksum of a batch header does not cover the length of its body.
    ChecksumOmitsLength,
    /// A recycled segment keeps what it held and the salt of its earlier use.
    RecycledAsItIs,
    /// A recycled segment loses what it held before its old name is gone for good.
    RecycledUnderItsOldName,
    /// What may be in the page cache only is not written again on opening.
    OpenedWithoutWritingAgain,
    /// Nor is the header of the newest segment.
    OpenedWithoutWritingTheHeaderAgain,
    /// What is cut on opening is replaced by zeros, which do not show that they are not on the disk yet.
    ErasedByZeros,
    /// What is cut on opening stays where it is.
    CutButNotErased,
    /// A damaged last batch is taken for a torn one.
    DamagedTakenForTorn,
    /// A damaged batch that was durable ends the log quietly.
    DamagedTakenForTheEnd,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Switches a mistake on, or all of them off, for what this thread does.
#[cfg(feature = "planted")]
pub fn plant(mistake: Option<Mistake>) {
    PLANTED.set(mistake);
}

/// Whether it is switched on.
pub(crate) fn is(mistake: Mistake) -> bool {
    #[cfg(feature = "planted")]
    let planted = PLANTED.get() == Some(mistake);
    #[cfg(not(feature = "planted"))]
    let planted = {
        let _ = mistake;
        false
    };
    planted
}
