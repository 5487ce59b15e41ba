//! Known mistakes of other implementations, and of this one, which tests switch on to see that the simulator finds them
//! (feature `planted`). Without the feature none of them is there.

#[cfg(feature = "planted")]
use std::cell::Cell;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted"), expect(unreachable_pub, reason = "public where tests can switch it on"))]
pub enum Mistake {
    /// A node that follows a leader of its own term forgets its vote of that term (CCF #8094). Nothing of it would be seen if
    /// the node did not vote while it hears or knows a leader, so that rule is off too.
    VoteClearedOnStepDown,
    /// A vote is told before it is durable.
    VoteBeforeSync,
    /// Entries of an earlier term are committed by counting (Raft paper, figure 8).
    OldTermCommittedByCounting,
    /// Entries are acknowledged before they are durable.
    AcknowledgedBeforeSync,
    /// Acknowledgements of an earlier term, or of a connection that has ended, count.
    StaleAcknowledgement,
    /// A read is answered without asking whether this node still leads.
    ReadWithoutConfirmation,
    /// One voter too few is a majority.
    QuorumOffByOne,
    /// A checkpoint that contradicts the log leaves what the log has after it.
    ConflictingSuffixKept,
    /// A node with a damaged log acknowledges.
    DamagedAcknowledges,
    /// A configuration stays in force when its entry is replaced (openraft #1808).
    ConfigurationNotReverted,
    /// A no to the question before an election does not tell the term (openraft #1796).
    PreVoteTeachesNothing,
    /// A node that comes back with an empty disk counts as the one that it was.
    WipedNodeVotes,
    /// What all replicas must have in the same order is in the order of a hash table.
    HashOrder,
    /// A command that arrives twice is executed twice.
    DoubledCommandExecuted,
    /// A process goes on with the session of the one before it.
    SessionOfAnotherProcess,
    /// A node that cannot ask for its session tries again without a pause.
    SessionRequestSpins,
    /// A leader answers reads on its lease after it has told another node to stand for election (openraft #1747).
    LeaseKeptOnTransfer,
    /// Empty nodes found a cluster without asking all that are listed.
    FoundedByMajority,
    /// A checkpoint gets its name, and the log is cut for it, before it is durable.
    CheckpointNotSynced,
    /// What expires does so by the clock of each node.
    ExpiryByLocalClock,
}

impl Mistake {
    /// All of them.
    #[cfg(feature = "planted")]
    pub const ALL: [Mistake; 20] = [
        Mistake::VoteClearedOnStepDown,
        Mistake::VoteBeforeSync,
        Mistake::OldTermCommittedByCounting,
        Mistake::AcknowledgedBeforeSync,
        Mistake::StaleAcknowledgement,
        Mistake::ReadWithoutConfirmation,
        Mistake::QuorumOffByOne,
        Mistake::ConflictingSuffixKept,
        Mistake::DamagedAcknowledges,
        Mistake::ConfigurationNotReverted,
        Mistake::PreVoteTeachesNothing,
        Mistake::WipedNodeVotes,
        Mistake::HashOrder,
        Mistake::DoubledCommandExecuted,
        Mistake::SessionOfAnotherProcess,
        Mistake::SessionRequestSpins,
        Mistake::LeaseKeptOnTransfer,
        Mistake::FoundedByMajority,
        Mistake::CheckpointNotSynced,
        Mistake::ExpiryByLocalClock,
    ];
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
    /// The wall clock of the node that does something.
    static LOCAL_CLOCK_MS: Cell<u64> = const { Cell::new(0) };
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

/// A simulated node with this wall clock goes on.
#[cfg(feature = "testing")]
pub(crate) fn see_local_clock(_wall_clock_ms: u64) {
    #[cfg(feature = "planted")]
    LOCAL_CLOCK_MS.set(_wall_clock_ms);
}

/// By which time a state machine lets things expire, where the replicated clock stands at `stamp_ms`.
pub(crate) fn stamp_ms(stamp_ms: u64) -> u64 {
    if is(Mistake::ExpiryByLocalClock) { local_clock_ms() } else { stamp_ms }
}

#[cfg(feature = "planted")]
fn local_clock_ms() -> u64 {
    LOCAL_CLOCK_MS.get()
}

#[cfg(not(feature = "planted"))]
fn local_clock_ms() -> u64 {
    unreachable!("nothing is planted")
}
