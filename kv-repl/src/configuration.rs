//! Who belongs to the cluster, and what a majority of it is (Raft paper, section 6; thesis, chapter 4).
//!
//! ```text
//!   {voters: old} ----> {voters: new, outgoing: old} ----> {voters: new}
//!                        joint: a majority of both
//! ```
//!
//! Between two sets of voters lies the joint configuration, in which everything needs a majority of each, so that old and
//! new voters can never decide apart. Hence any change can be made at once. Learners receive the log and count for
//! nothing; a change of learners alone needs no joint configuration.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::quorum::{VOTERS_MAX, reached_by_majority};
use crate::types::{Incarnation, Member, NodeId};

const VERSION: u8 = 1;

/// Members in one list, at most.
pub const MEMBERS_MAX: usize = VOTERS_MAX;

/// Who votes and who learns. Each list is sorted by node id and has each id once. Two incarnations of one id may stand in
/// different lists: a node that has lost its disk is a learner before it takes its old self's place.
///
/// ```
/// use kv_repl::types::{Configuration, Incarnation, Member, NodeId};
///
/// let node = |id, disk| Member::new(NodeId::new(id), Incarnation::new(disk));
/// let three = Configuration::new(vec![node(1, 10), node(2, 20), node(3, 30)]);
/// let wiped = three.with_learner(node(3, 31));
/// assert!(wiped.is_voter(node(3, 30)) && !wiped.is_voter(node(3, 31)));
/// let healed = wiped.with_voter(node(3, 31));
/// assert_eq!(healed.voters(), [node(1, 10), node(2, 20), node(3, 31)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    voters: Vec<Member>,
    outgoing: Vec<Member>,
    learners: Vec<Member>,
}

impl Configuration {
    /// The configuration with these voters. (The default one has none: that of a node which nobody has told yet.)
    ///
    /// # Panics
    ///
    /// If an id occurs twice, or there is no voter, or there are more than [`MEMBERS_MAX`].
    pub fn new(mut voters: Vec<Member>) -> Self {
        assert!(!voters.is_empty(), "a configuration has at least one voter");
        voters.sort();
        assert!(is_list(&voters), "each node once, and not too many");
        Configuration { voters, ..Configuration::default() }
    }

    /// The voters, sorted by id. In a joint configuration the new ones.
    pub fn voters(&self) -> &[Member] {
        &self.voters
    }

    /// In a joint configuration the old voters, sorted by id. Otherwise none.
    pub fn outgoing(&self) -> &[Member] {
        &self.outgoing
    }

    /// Those that receive the log and count for nothing, sorted by id.
    pub fn learners(&self) -> &[Member] {
        &self.learners
    }

    /// Whether a majority of two sets of voters is needed.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether exactly this member votes, as a new voter or an old one.
    pub fn is_voter(&self, member: Member) -> bool {
        self.voters.contains(&member) || self.outgoing.contains(&member)
    }

    /// Whether exactly this member votes or learns.
    pub fn is_member(&self, member: Member) -> bool {
        self.is_voter(member) || self.learners.contains(&member)
    }

    /// The voter with this id; in a joint configuration the new one.
    pub fn voter(&self, id: NodeId) -> Option<Member> {
        find(&self.voters, id)
    }

    /// The learner with this id.
    pub fn learner(&self, id: NodeId) -> Option<Member> {
        find(&self.learners, id)
    }

    /// New and old voters, each once.
    pub fn all_voters(&self) -> impl Iterator<Item = Member> {
        let old = self.outgoing.iter().filter(|old| self.voters.binary_search(old).is_err());
        self.voters.iter().chain(old).copied()
    }

    /// Everyone, each once.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let learners = self.learners.iter().filter(|learner| !self.is_voter(**learner));
        self.all_voters().chain(learners.copied())
    }

    /// With this learner, in place of another one with its id. If it votes it does so no longer, unless nobody else does.
    ///
    /// # Panics
    ///
    /// If there are too many.
    #[must_use]
    pub fn with_learner(&self, member: Member) -> Configuration {
        let mut new = self.clone();
        if new.voters != [member] {
            new.voters.retain(|voter| *voter != member);
            put(&mut new.learners, member);
        }
        new
    }

    /// With this voter, in place of another one with its id; it learns no more.
    ///
    /// # Panics
    ///
    /// If there are too many.
    #[must_use]
    pub fn with_voter(&self, member: Member) -> Configuration {
        let mut new = self.clone();
        new.learners.retain(|learner| learner.id != member.id);
        put(&mut new.voters, member);
        new
    }

    /// Without any member that has this id; the one that votes last stays.
    #[must_use]
    pub fn without(&self, id: NodeId) -> Configuration {
        let mut new = self.clone();
        new.learners.retain(|learner| learner.id != id);
        if new.voters.iter().any(|voter| voter.id != id) {
            new.voters.retain(|voter| voter.id != id);
        }
        new
    }

    /// What lies between this configuration and `target`: joint if their voters differ.
    ///
    /// # Panics
    ///
    /// If one of them is joint already.
    #[must_use]
    pub fn towards(&self, target: &Configuration) -> Configuration {
        assert!(!self.is_joint() && !target.is_joint(), "one change at a time");
        let mut next = target.clone();
        if self.voters != target.voters {
            next.outgoing.clone_from(&self.voters);
        }
        next
    }

    /// What follows a joint configuration: the new voters alone.
    #[must_use]
    pub fn settled(&self) -> Configuration {
        Configuration { outgoing: Vec::new(), ..self.clone() }
    }

    /// The greatest value that a majority has reached, of each set of voters.
    ///
    /// # Panics
    ///
    /// If there is no voter.
    pub fn reached<T: Ord + Copy>(&self, of: impl Fn(Member) -> T) -> T {
        let new = reached_by_majority(self.voters.iter().map(|voter| of(*voter)));
        if !self.is_joint() {
            return new;
        }
        new.min(reached_by_majority(self.outgoing.iter().map(|voter| of(*voter))))
    }

    /// Whether those for whom `is_in` holds are a majority, of each set of voters.
    pub fn is_majority(&self, is_in: impl Fn(Member) -> bool) -> bool {
        !self.voters.is_empty() && self.reached(is_in)
    }

    /// As bytes, the same on every node.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        for list in [&self.voters, &self.outgoing, &self.learners] {
            put_members(list, &mut out);
        }
        out.freeze()
    }

    /// Reads what [`Configuration::encode`] wrote. `None` if it is none of this version, or none at all.
    pub fn decode(mut bytes: &[u8]) -> Option<Configuration> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut list = || take_members(&mut bytes);
        let (voters, outgoing, learners) = (list()?, list()?, list()?);
        let configuration = Configuration { voters, outgoing, learners };
        (bytes.is_empty() && configuration.is_valid()).then_some(configuration)
    }

    fn is_valid(&self) -> bool {
        let is_apart = |learner: &Member| self.voters.binary_search(learner).is_err();
        !self.voters.is_empty() && self.learners.iter().all(is_apart)
    }
}

fn find(list: &[Member], id: NodeId) -> Option<Member> {
    list.iter().copied().find(|member| member.id == id)
}

fn put(list: &mut Vec<Member>, member: Member) {
    list.retain(|other| other.id != member.id);
    list.push(member);
    list.sort();
    assert!(is_list(list), "not too many members");
}

fn is_list(members: &[Member]) -> bool {
    members.len() <= MEMBERS_MAX && members.windows(2).all(|pair| pair[0].id < pair[1].id)
}

/// Bytes of a member.
const MEMBER_BYTES: usize = 16;

/// Appends a member.
pub(crate) fn put_member(member: Member, out: &mut BytesMut) {
    out.put_u64_le(member.id.get());
    out.put_u64_le(member.incarnation.get());
}

/// Reads a member.
///
/// # Panics
///
/// If there are fewer bytes.
pub(crate) fn take_member(bytes: &mut &[u8]) -> Member {
    Member::new(NodeId::new(bytes.get_u64_le()), Incarnation::new(bytes.get_u64_le()))
}

/// Appends a list of members with its length.
pub(crate) fn put_members(list: &[Member], out: &mut BytesMut) {
    out.put_u16_le(list.len() as u16);
    list.iter().for_each(|member| put_member(*member, out));
}

/// Reads a list of members; `None` if it is cut off, too long, or not sorted by id with each id once.
pub(crate) fn take_members(bytes: &mut &[u8]) -> Option<Vec<Member>> {
    let count = usize::from(bytes.try_get_u16_le().ok()?);
    if bytes.len() < count.checked_mul(MEMBER_BYTES)? {
        return None;
    }
    let list: Vec<Member> = (0..count).map(|_| take_member(bytes)).collect();
    is_list(&list).then_some(list)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn member(id: u64) -> Member {
        Member::new(NodeId::new(id), Incarnation::new(id * 10))
    }

    fn set(mask: u32) -> Vec<Member> {
        (1..=6).filter(|id| mask & (1 << id) != 0).map(member).collect()
    }

    /// Voters, outgoing and learners as bit masks of ids 1 to 6.
    fn configuration(voters: u32, outgoing: u32, learners: u32) -> Option<Configuration> {
        let (voters, outgoing, learners) = (set(voters), set(outgoing), set(learners));
        let configuration = Configuration { voters, outgoing, learners };
        configuration.is_valid().then_some(configuration)
    }

    fn any_configuration() -> impl Strategy<Value = Configuration> {
        (0u32..128, 0u32..128, 0u32..128).prop_filter_map("valid", |(a, b, c)| configuration(a, b, c))
    }

    proptest! {
        /// The twin counts: more than half of each set.
        #[test]
        fn thesis_4_3_a_majority_is_one_of_each_set(of in any_configuration(), there in 0u32..128) {
            let there: BTreeSet<Member> = set(there).into_iter().collect();
            let more_than_half =
                |list: &[Member]| 2 * list.iter().filter(|one| there.contains(one)).count() > list.len();
            let expected = more_than_half(&of.voters) && (of.outgoing.is_empty() || more_than_half(&of.outgoing));
            prop_assert_eq!(of.is_majority(|member| there.contains(&member)), expected);
        }

        /// The twin tries every set of members, and takes the best value that all of a majority have.
        #[test]
        fn thesis_4_3_reached_is_the_best_of_all_majorities(
            of in any_configuration(),
            values in proptest::collection::vec(0u64..5, 8),
        ) {
            let value = |member: Member| values[member.id.get() as usize];
            let majorities = (0u32..128).map(set).filter(|set| of.is_majority(|member| set.contains(&member)));
            let counted = |member: &Member| of.is_voter(*member);
            let lowest = |set: Vec<Member>| set.into_iter().filter(counted).map(value).min();
            prop_assert_eq!(Some(of.reached(value)), majorities.filter_map(lowest).max());
        }

        /// What the whole of section 4.3 rests on: whoever decides in one configuration meets whoever decides in the next.
        #[test]
        fn thesis_4_3_majorities_of_one_step_always_meet(
            (from, to) in (any_configuration(), any_configuration()).prop_map(|(a, b)| (a.settled(), b.settled())),
        ) {
            let joint = from.towards(&to);
            let steps = [from, joint.clone(), joint.settled()];
            for pair in steps.windows(2) {
                for (one, other) in (0u32..128).flat_map(|one| (0u32..128).map(move |other| (set(one), set(other)))) {
                    let decide = pair[0].is_majority(|member| one.contains(&member))
                        && pair[1].is_majority(|member| other.contains(&member));
                    prop_assert!(!decide || one.iter().any(|member| other.contains(member)), "{one:?} and {other:?}");
                }
            }
        }

        #[test]
        fn bytes_round_trip(of in any_configuration()) {
            let bytes = of.encode();
            prop_assert_eq!(Configuration::decode(&bytes), Some(of));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Configuration::decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn arbitrary_bytes_give_a_configuration_that_is_written_the_same_or_none(
            bytes in proptest::collection::vec(0u8..3, 0..60),
        ) {
            if let Some(configuration) = Configuration::decode(&bytes) {
                prop_assert_eq!(&configuration.encode()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn each_member_is_counted_once() {
        let joint = configuration(0b1110, 0b11100, 0b100000).expect("valid");
        assert_eq!(joint.all_voters().collect::<Vec<_>>(), [1, 2, 3, 4].map(member));
        assert_eq!(joint.members().collect::<Vec<_>>(), [1, 2, 3, 4, 5].map(member));
        let demoted = configuration(0b110, 0b1110, 0b1000).expect("an old voter may go on as a learner");
        assert_eq!(demoted.members().collect::<Vec<_>>(), [1, 2, 3].map(member));
        assert!(demoted.is_voter(member(3)) && !demoted.settled().is_voter(member(3)));
    }

    #[test]
    fn a_change_of_learners_alone_is_not_joint() {
        let three = Configuration::new([1, 2, 3].map(member).to_vec());
        assert!(!three.towards(&three.with_learner(member(4))).is_joint());
        assert!(three.towards(&three.without(NodeId::new(3))).is_joint());
    }

    #[test]
    fn nobody_is_a_majority_of_nobody() {
        assert!(!Configuration::default().is_majority(|_| true));
    }

    #[test]
    fn a_cluster_is_never_emptied() {
        let one = Configuration::new(vec![member(1)]);
        assert_eq!(one.without(NodeId::new(1)), one);
    }
}
