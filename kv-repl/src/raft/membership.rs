//! Changing who belongs to the cluster (Raft paper, section 6; thesis, chapter 4).
//!
//! ```text
//!   change_membership                 committed                     committed
//!   ------------------> joint entry ------------> entry of the new ------------> done; a leader that
//!                       (only if voters change)   voters alone                   is no voter steps down
//! ```
//!
//! One change at a time, and none before the leader has committed an entry of its own term. A new leader goes on with what
//! it finds in its log. A voter must have learned first: a newcomer without the log would be counted on at once, and hold
//! up every commit until it has the log (thesis, section 4.2.1). A change after which no majority would be there is
//! refused: the leader would end its own reign with it.
//!
//! A node that comes back with an empty disk is another member with a known id. The leader makes it a learner by itself,
//! and then lets it take the place of the voter it was, which counts as silent until then; see `replacement`.

use std::time::Duration;

use thiserror::Error;

use super::leader::Leader;
use super::progress::Peer;
use super::{Raft, State};
use crate::configuration::MEMBERS_MAX;
use crate::types::{Configuration, Index, Member, NodeId, kind};

/// Why the configuration was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// For the caller: this node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// For the caller, soon: leadership is on its way to another node.
    #[error("leadership is being handed to node {to}")]
    Transferring {
        /// That node.
        to: NodeId,
    },
    /// For the caller, later: the last change is not complete.
    #[error("the change at entry {index} is not complete")]
    InProgress {
        /// Where it stands in the log.
        index: Index,
    },
    /// For the caller, soon: this leader has committed nothing of its own term yet.
    #[error("this leader has not committed anything yet")]
    TooEarly,
    /// For the caller: a joint configuration is for leaders to make.
    #[error("a joint configuration is no goal")]
    Joint,
    /// For the caller: make it a learner first, and wait until it has the log.
    #[error("node {member} has not caught up with the log; it must learn before it votes")]
    NotCaughtUp {
        /// The one to become a voter.
        member: Member,
    },
    /// For the caller: too many of these voters do not answer, or are behind.
    #[error("no majority of the new voters answers and has the log; nothing could be committed")]
    NoMajority,
}

impl Raft {
    /// Brings about that `target` is the configuration, step by step. Gives the entry that the change begins with. It is
    /// complete when [`Raft::configuration`] is `target` and committed; it may be undone before that if this node loses its
    /// leadership. If `target` is in force already nothing happens.
    ///
    /// Its entries are appended also while proposals are refused for want of room.
    ///
    /// # Errors
    ///
    /// See [`ChangeError`]; nothing has changed then.
    pub fn change_membership(&mut self, now: Duration, target: &Configuration) -> Result<Index, ChangeError> {
        self.see(now);
        let leader = self.leader();
        let State::Leader(state) = &self.state else { return Err(ChangeError::NotLeader { leader }) };
        if target.is_joint() {
            return Err(ChangeError::Joint);
        }
        if let Some(to) = state.transfer_to() {
            return Err(ChangeError::Transferring { to });
        }
        if self.committed < state.first() {
            return Err(ChangeError::TooEarly);
        }
        let (index, effective) = (self.configurations.index(), self.configurations.effective());
        if self.committed < index || effective.is_joint() {
            return Err(ChangeError::InProgress { index });
        }
        if effective == target {
            return Ok(index);
        }
        let mut newcomers = target.voters().iter().copied().filter(|voter| !effective.is_voter(*voter));
        if let Some(member) = newcomers.find(|voter| !state.has_caught_up(*voter, self.timely())) {
            return Err(ChangeError::NotCaughtUp { member });
        }
        if !target.is_majority(|voter| self.is_there(state, voter)) {
            return Err(ChangeError::NoMajority);
        }
        let next = effective.towards(target);
        self.append_configuration(&next);
        Ok(self.log.last().index)
    }

    /// Whether a voter could help to commit the next entry. One with a damaged log answers, and cannot.
    pub(super) fn is_there(&self, leader: &Leader, member: Member) -> bool {
        let is_heard = |peer: &Peer| peer.is_heard(self.now, &self.options);
        member == self.me
            || leader.peers.get(&member).is_some_and(is_heard) && leader.has_caught_up(member, self.timely())
    }

    /// What began before this and is not done takes longer than an election may.
    pub(super) fn timely(&self) -> Duration {
        self.now.saturating_sub(self.options.election_timeout_min)
    }

    fn append_configuration(&mut self, configuration: &Configuration) {
        self.append_own(kind::CONFIGURATION, configuration.encode());
    }

    /// The next step of a change, when the one before it is committed.
    pub(super) fn advance_membership(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        if self.committed < self.configurations.index() || self.committed < leader.first() {
            return;
        }
        let effective = self.configurations.effective();
        if effective.is_joint() {
            let settled = effective.settled();
            self.append_configuration(&settled);
        } else if !effective.is_voter(self.me) {
            self.abdicate();
        }
    }

    /// Lets those in that have lost their disks, a step at a time. Due with each heartbeat.
    pub(super) fn let_newcomers_in(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        if let Some(next) = self.next_replacement(leader) {
            self.append_configuration(&next);
        }
    }

    fn next_replacement(&self, leader: &Leader) -> Option<Configuration> {
        let effective = self.configurations.effective();
        let is_complete = self.committed >= self.configurations.index().max(leader.first()) && !effective.is_joint();
        if !is_complete || leader.transfer.is_some() || self.is_disk_full {
            return None;
        }
        let connected = self.connections.keys().copied();
        let target = replacement(effective, connected, |member| leader.has_caught_up(member, self.timely()))?;
        // As for any change: not if it ends this node's reign.
        let is_safe = target.is_majority(|voter| self.is_there(leader, voter));
        is_safe.then(|| effective.towards(&target))
    }

    /// Another configuration may be in force.
    pub(super) fn configuration_changed(&mut self) {
        let State::Leader(leader) = &mut self.state else { return };
        let (effective, last, now) = (self.configurations.effective(), self.log.last().index, self.now);
        leader.peers.retain(|member, _| effective.is_member(*member));
        for member in effective.members().filter(|member| *member != self.me) {
            let connection = self.connections.get(&member).copied();
            leader.peers.entry(member).or_insert_with(|| Peer::new(last, connection, now));
        }
    }
}

/// What brings the configuration nearer to who is really there, if anything does. `connected` are the others that this node
/// has a connection to.
///
/// | a connected member | then |
/// |---|---|
/// | is not in the configuration, but its id is, and there is room | it learns, in place of another learner with its id |
/// | learns, has caught up, and a voter with its id is not connected | it takes that voter's place |
fn replacement(
    configuration: &Configuration,
    connected: impl Iterator<Item = Member> + Clone,
    has_caught_up: impl Fn(Member) -> bool,
) -> Option<Configuration> {
    let is_known = |id: NodeId| configuration.voter(id).is_some() || configuration.learner(id).is_some();
    let is_connected = |member: Member| connected.clone().any(|other| other == member);
    let is_heir = |member: Member| {
        let voter = configuration.voter(member.id);
        voter.is_some_and(|voter| voter != member && !is_connected(voter)) && has_caught_up(member)
    };
    let has_room = |id: NodeId| configuration.learners().len() < MEMBERS_MAX || configuration.learner(id).is_some();
    for member in connected.clone() {
        if !configuration.is_member(member) && is_known(member.id) && has_room(member.id) {
            return Some(configuration.with_learner(member));
        }
        if configuration.learner(member.id) == Some(member) && is_heir(member) {
            return Some(configuration.with_voter(member));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;

    fn member(id: u64, incarnation: u64) -> Member {
        Member::new(NodeId::new(id), Incarnation::new(incarnation))
    }

    /// Every row of the table above [`replacement`], and what is none of them.
    #[test]
    fn a_node_that_lost_its_disk_learns_and_then_takes_its_own_place() {
        let three = Configuration::new(vec![member(1, 1), member(2, 1), member(3, 1)]);
        let next = |of: &Configuration, connected: &[Member], caught_up: bool| {
            replacement(of, connected.iter().copied(), |_| caught_up)
        };
        let (two, new) = (member(2, 1), member(3, 2));
        assert_eq!(next(&three, &[two, member(3, 1)], true), None, "all are who they were");
        assert_eq!(next(&three, &[two, member(4, 1)], true), None, "a stranger comes in only if somebody asks for it");
        let learning = three.with_learner(new);
        assert_eq!(next(&three, &[two, new], true), Some(learning.clone()));
        assert_eq!(next(&learning, &[two, new], false), None, "it needs the log first");
        assert_eq!(next(&learning, &[two, new, member(3, 1)], true), None, "the voter is there after all");
        assert_eq!(next(&learning, &[two, member(3, 3)], true), Some(three.with_learner(member(3, 3))), "wiped again");
        assert_eq!(next(&learning, &[two, member(3, 1)], true), None, "the old disk is back");
        assert_eq!(next(&learning, &[two, new], true), Some(three.with_voter(new)));
        let one_learns = three.with_learner(member(4, 1));
        assert_eq!(next(&one_learns, &[member(4, 2)], true), Some(three.with_learner(member(4, 2))));
        assert_eq!(next(&one_learns, &[member(4, 1)], true), None, "nobody is promoted unasked");
        let full = (0..MEMBERS_MAX as u64).fold(three, |full, id| full.with_learner(member(10 + id, 1)));
        assert_eq!(next(&full, &[new], true), None, "no more can learn");
        assert_eq!(next(&full, &[member(10, 2)], true), Some(full.with_learner(member(10, 2))));
    }
}
