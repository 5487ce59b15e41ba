//! Handing leadership over (thesis, section 3.10).
//!
//! ```text
//!   leader                                        chosen voter
//!     | takes no more proposals                        |
//!     | ------------- entries, until it has all -----> |
//!     | ------------- TimeoutNow --------------------> | begins an election, without asking first
//!     | <------------ RequestVote, a later term ------ | and wins it: no log is ahead of its own
//! ```
//!
//! Nobody but the leader can call an election while the others hear it, and it does so by TimeoutNow alone. Should the
//! voter not get there within `election_timeout_max`, or the connection to it break after it was told, the leader goes on
//! as before: a TimeoutNow that arrives after all costs an election, and nothing else.
//!
//! A leader whose disk hangs, while the others commit without it, tells the voter with the longest log when it steps down,
//! so that they need not wait for an election timeout.

use std::time::Duration;

use thiserror::Error;

use super::leader::Leader;
use super::{Raft, State};
use crate::message::{Message, TimeoutNow};
use crate::planted::{self, Mistake};
use crate::types::{Member, NodeId};

/// Leadership on its way to another node.
pub(super) struct Transfer {
    pub(super) to: Member,
    /// When it is given up.
    pub(super) until: Duration,
    /// Whether the other has been told.
    told: bool,
}

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// For the caller: this node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
    /// For the caller: only another voter can be given leadership.
    #[error("node {to} is not another voter of this cluster")]
    NotAnotherVoter {
        /// The node asked for.
        to: NodeId,
    },
    /// For the caller, later: there is no connection to that node.
    #[error("node {to} is not connected")]
    NotConnected {
        /// The node asked for.
        to: NodeId,
    },
}

impl Leader {
    /// Where leadership is on its way to.
    pub(super) fn transfer_to(&self) -> Option<NodeId> {
        self.transfer.as_ref().map(|transfer| transfer.to.id)
    }
}

impl Raft {
    /// Where leadership is on its way to, if this node leads and has been asked to hand it over.
    pub fn transfer_to(&self) -> Option<NodeId> {
        if let State::Leader(leader) = &self.state { leader.transfer_to() } else { None }
    }

    /// Who had best lead next, if this node leads: the connected voter with the longest log, if it keeps up with this one's.
    pub fn successor(&self) -> Option<NodeId> {
        let State::Leader(leader) = &self.state else { return None };
        self.best_successor(leader).map(|member| member.id)
    }

    fn best_successor(&self, leader: &Leader) -> Option<Member> {
        let voters = self.configurations.effective().voters().iter();
        let connected = voters.filter_map(|voter| leader.peers.get_key_value(voter));
        let connected = connected.filter(|(_, peer)| peer.connection.is_some());
        // One that has come back with a damaged log keeps what it acknowledged before, and cannot lead.
        connected
            .max_by_key(|(_, peer)| (peer.has_caught_up(self.timely()), peer.match_index))
            .map(|(member, _)| *member)
    }

    /// Begins to hand leadership to another voter. Proposals are refused from now on; what becomes of it shows in the role
    /// ([`Output::Role`](super::Output::Role)), and if that has not changed after `election_timeout_max`, the leader goes on as before.
    /// A second call replaces the first.
    ///
    /// # Errors
    ///
    /// See [`TransferError`]; nothing has changed then.
    pub fn transfer_leadership(&mut self, now: Duration, to: NodeId) -> Result<(), TransferError> {
        self.see(now);
        let (leader, until) = (self.leader(), self.now + self.options.election_timeout_max);
        let State::Leader(state) = &mut self.state else { return Err(TransferError::NotLeader { leader }) };
        let voter = self.configurations.effective().voter(to);
        let Some((member, peer)) = voter.and_then(|voter| state.peers.get_key_value(&voter)) else {
            return Err(TransferError::NotAnotherVoter { to });
        };
        if peer.connection.is_none() {
            return Err(TransferError::NotConnected { to });
        }
        state.transfer = Some(Transfer { to: *member, until, told: false });
        Ok(())
    }

    /// Tells the chosen voter when it has everything; gives up when it has not got there in time.
    pub(super) fn advance_transfer(&mut self) {
        let (term, last) = (self.hard_state.term, self.log.last().index);
        let State::Leader(leader) = &mut self.state else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let (to, has_all) = (transfer.to, leader.peers.get(&transfer.to).is_some_and(|peer| peer.match_index == last));
        if self.now >= transfer.until {
            leader.transfer = None;
        } else if has_all && !transfer.told {
            transfer.told = true;
            if !planted::is(Mistake::LeaseKeptOnTransfer) {
                leader.lease.void();
            }
            self.send(to, Message::TimeoutNow(TimeoutNow { term }));
        }
    }

    /// The connection to a peer has changed: what was on its way may be lost.
    pub(super) fn interrupt_transfer(&mut self, peer: Member) {
        if let State::Leader(leader) = &mut self.state {
            leader.transfer.take_if(|transfer| transfer.to == peer);
        }
    }

    /// Steps down in favour of the voter with the longest log.
    pub(super) fn abdicate(&mut self) {
        let State::Leader(leader) = &self.state else { return };
        let (successor, term) = (self.best_successor(leader), self.hard_state.term);
        self.follow(term, None);
        if let Some(to) = successor {
            self.send(to, Message::TimeoutNow(TimeoutNow { term }));
        }
    }

    /// The leader wants this node to lead. From anybody else it is nothing.
    pub(super) fn handle_timeout_now(&mut self, from: Member, order: TimeoutNow) {
        let is_led = matches!(&self.state, State::Follower(follower) if follower.leader == Some(from));
        if is_led && order.term == self.hard_state.term && self.may_campaign() {
            self.start_election(true);
        }
    }
}
