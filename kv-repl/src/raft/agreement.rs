//! Whether all replicas hold the same state, compared within the log and hence at the same index.
//!
//! ```text
//!   log         ... | mark | ... | agreed: the hash at the mark was 7f3a... | ...
//!   replicas         note the hash       compare what they noted
//!                    | tell the leader   ^
//!                    `-> Marked ---------+ a majority of the voters had that one
//! ```
//!
//! Each replica notes its state hash when it applies a mark, and tells the leader. As soon as a majority of the voters has
//! the same one, the leader appends it, provided that it has applied the mark itself; whoever applies that and has noted
//! another one knows that its state is wrong. A leader that finds itself in the minority appends nothing and makes way. A
//! replica that was restored past the mark has nothing to compare. A report that is lost is a comparison less: the newest one is told again to each new leader.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Raft, State};
use crate::message::{Marked, Message};
use crate::types::{Configuration, Index, Member, kind};

/// Marks that a leader waits to hear about, at most.
pub(crate) const MARKS_MAX: usize = 64;

/// The hash that a majority of the voters had when they applied a mark: payload of an entry of the kind
/// [`kind::AGREED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The mark's position.
    pub index: Index,
    /// The state hash there.
    pub hash: [u8; 32],
}

impl Agreed {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(40);
        out.put_u64_le(self.index.get());
        out.put_slice(&self.hash);
        out.freeze()
    }

    /// Reads what [`Agreed::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Option<Agreed> {
        let index = Index::new(bytes.try_get_u64_le().ok()?);
        Some(Agreed { index, hash: bytes.try_into().ok()? })
    }
}

/// What a leader has heard of the last marks.
#[derive(Default)]
pub(super) struct Reports {
    by_mark: BTreeMap<Index, BTreeMap<Member, [u8; 32]>>,
    /// The last mark that this node has passed.
    passed: Index,
}

impl Reports {
    /// Notes what another node had at a mark. Not if nothing can come of it, because this node has passed the mark and says
    /// nothing of it; nor if it is one too many: those before it are to be compared first.
    fn hear(&mut self, from: Member, marked: Agreed) {
        let has_room = self.by_mark.len() < MARKS_MAX && marked.index > self.passed;
        if has_room || self.by_mark.contains_key(&marked.index) {
            self.note(from, marked);
        }
    }

    /// Notes what this node had at a mark. Those before it have had their turn, and make room.
    fn note_own(&mut self, me: Member, marked: Agreed) {
        self.passed = self.passed.max(marked.index);
        self.note(me, marked);
        while self.by_mark.len() > MARKS_MAX {
            self.by_mark.pop_first();
        }
    }

    fn note(&mut self, from: Member, marked: Agreed) {
        self.by_mark.entry(marked.index).or_default().insert(from, marked.hash);
    }

    /// The last mark that this node has passed and a majority had the same hash at, and whether it is that of `me`.
    fn agreed(&self, me: Member, configuration: &Configuration) -> Option<(Agreed, bool)> {
        let agreed = |(index, reports): (&Index, &BTreeMap<Member, [u8; 32]>)| {
            let own = reports.get(&me)?;
            let is_common = |hash: &&[u8; 32]| configuration.is_majority(|voter| reports.get(&voter) == Some(*hash));
            let common = reports.values().find(is_common)?;
            Some((Agreed { index: *index, hash: *common }, common == own))
        };
        self.by_mark.iter().rev().find_map(agreed)
    }

    /// Nobody needs to hear of marks up to here any more.
    fn forget(&mut self, upto: Index) {
        self.by_mark = self.by_mark.split_off(&upto.next());
    }
}

impl Raft {
    /// This replica has applied the mark at `index`, with this state hash.
    pub fn handle_marked(&mut self, now: Duration, index: Index, hash: [u8; 32]) {
        self.see(now);
        self.marked = Some(Agreed { index, hash });
        self.tell_marked();
    }

    /// This replica has applied what a majority agreed on, and has another state itself, or the same again. With another
    /// one it goes on as a voter, whose log is as good as any, and does not lead.
    pub fn handle_diverged(&mut self, now: Duration, is_diverged: bool) {
        self.see(now);
        self.is_diverged = is_diverged;
        if is_diverged && matches!(self.state, State::Leader(_)) {
            self.abdicate();
        }
    }

    /// Tells the leader, be it this node or another.
    pub(super) fn tell_marked(&mut self) {
        let Some(Agreed { index, hash }) = self.marked else { return };
        match &mut self.state {
            State::Leader(leader) => {
                leader.reports.note_own(self.me, Agreed { index, hash });
                self.judge_reports();
            }
            State::Follower(follower) => {
                if let Some(leader) = follower.leader {
                    self.send(leader, Message::Marked(Marked { term: self.hard_state.term, index, hash }));
                }
            }
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
    }

    pub(super) fn handle_marked_message(&mut self, from: Member, marked: Marked) {
        if let State::Leader(leader) = &mut self.state {
            leader.reports.hear(from, Agreed { index: marked.index, hash: marked.hash });
            self.judge_reports();
        }
    }

    fn judge_reports(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        // What this node has not applied itself, it can't judge yet.
        match leader.reports.agreed(self.me, self.configurations.effective()) {
            Some((agreed, true)) => {
                leader.reports.forget(agreed.index);
                self.append_own(kind::AGREED, agreed.encode());
            }
            Some((_, false)) => self.abdicate(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::tests::index;
    use crate::types::{Incarnation, NodeId};

    fn member(id: u64) -> Member {
        Member::new(NodeId::new(id), Incarnation::new(1))
    }

    #[test]
    fn a_majority_of_the_voters_has_the_same_hash_at_the_same_mark() {
        let three = Configuration::new([1, 2, 3].map(member).to_vec()).with_learner(member(4));
        let mut reports = Reports::default();
        let mut hear = |from: u64, at: u64, hash: u8| {
            reports.hear(member(from), Agreed { index: index(at), hash: [hash; 32] });
            reports.agreed(member(1), &three).map(|(agreed, is_own)| (agreed.index.get(), agreed.hash[0], is_own))
        };
        assert_eq!(hear(1, 10, 7), None);
        assert_eq!(hear(4, 10, 7), None, "a learner does not count");
        assert_eq!(hear(2, 10, 8), None, "two hashes, one each");
        assert_eq!(hear(2, 20, 7), None, "the same hash, at another mark");
        assert_eq!(hear(3, 10, 8), Some((10, 8, false)));
        assert_eq!(hear(3, 20, 7), Some((10, 8, false)), "this node is not there yet");
        assert_eq!(hear(1, 20, 7), Some((20, 7, true)), "the newest one");
    }

    #[test]
    fn few_marks_are_kept_whatever_is_reported() {
        let (mut reports, max) = (Reports::default(), MARKS_MAX as u64);
        let marked = |at| Agreed { index: index(at), hash: [1; 32] };
        (1..=max + 9).for_each(|at| reports.hear(member(2), marked(at)));
        let kept = |reports: &Reports| reports.by_mark.keys().map(|at| at.get()).collect::<Vec<_>>();
        assert_eq!(kept(&reports), (1..=max).collect::<Vec<_>>(), "the first ones, which are next");
        (1..=max + 9).for_each(|at| reports.note_own(member(1), marked(at)));
        assert_eq!(kept(&reports), (10..=max + 9).collect::<Vec<_>>(), "nothing came of those before");
        reports.hear(member(3), marked(max));
        assert_eq!(reports.by_mark[&index(max)].len(), 3);
        reports.forget(index(max + 7));
        assert_eq!(kept(&reports), [max + 8, max + 9]);
        reports.hear(member(2), marked(max));
        assert_eq!(kept(&reports), [max + 8, max + 9], "what this node has passed takes no room");
    }

    #[test]
    fn bytes_round_trip() {
        let agreed = Agreed { index: index(9), hash: [5; 32] };
        assert_eq!(Agreed::decode(&agreed.encode()), Some(agreed));
        assert_eq!(Agreed::decode(&agreed.encode()[..39]), None);
        assert_eq!(Agreed::decode(&[0; 41]), None);
    }
}
