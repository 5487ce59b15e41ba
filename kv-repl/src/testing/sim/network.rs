//! Connections and what goes over them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::{Event, Fault, Simulation, Workload};
use crate::codec::{Frame, FrameCodec};
use crate::driver::peers::PeerEvent;
use crate::message::Message;
use crate::types::{Member, NodeId};

#[derive(Default)]
pub(super) struct Network {
    pub(super) connections: u64,
    /// Nothing gets from the first to the second.
    pub(super) cuts: BTreeSet<(usize, usize)>,
    /// Of so many messages one is lost, one is doubled, and one is late; 0 for none.
    pub(super) loses: u64,
    pub(super) doubles: u64,
    pub(super) delays: u64,
}

const DELAY: Duration = Duration::from_micros(600);
/// Of what is late.
const DELAY_MAX: Duration = Duration::from_millis(400);
/// Of what is so late that terms may have gone by.
const LONG_DELAY_MAX: Duration = Duration::from_secs(5);

/// What arrives is other memory than what was sent, which may be a map of the sender's files.
fn over_the_wire(message: Message) -> Message {
    let mut wire = BytesMut::new();
    FrameCodec::default().encode(Frame::Message(message), &mut wire).expect("what the core sends fits in a frame");
    match FrameCodec::default().decode(&mut wire) {
        Ok(Some(Frame::Message(message))) => message,
        other => panic!("a message was changed by its encoding: {other:?}"),
    }
}

impl<W: Workload> Simulation<W> {
    /// Sends a message, or loses it.
    pub(super) fn transmit(&mut self, from: usize, me: Member, to: NodeId, message: Message) {
        let to = to.get() as usize - 1;
        self.report.messages += 1;
        if self.network.cuts.contains(&(from, to)) {
            self.report.cut_off += 1;
            return;
        }
        if !self.are_of_one_cluster(from, to) {
            return;
        }
        if self.happens(self.network.loses) {
            self.report.count(Fault::Loss);
            return;
        }
        if self.happens(self.network.doubles) {
            self.report.count(Fault::Duplication);
            self.put_on_the_way(me, to, message.clone());
        }
        self.put_on_the_way(me, to, message);
    }

    fn put_on_the_way(&mut self, from: Member, to: usize, message: Message) {
        let message = over_the_wire(message);
        let is_late = self.happens(self.network.delays);
        if is_late {
            self.report.count(Fault::Delay);
        }
        let is_very_late = is_late && self.random.once_in(10);
        let bound = if is_very_late { LONG_DELAY_MAX } else { DELAY_MAX };
        let after = self.duration_below(if is_late { bound } else { DELAY });
        let (epoch, event) = (self.machines[to].epoch, Box::new(PeerEvent::Message { from, message }));
        self.plan(after, Event::Arrive { node: to, epoch, event });
    }

    fn happens(&mut self, once_in: u64) -> bool {
        once_in > 0 && self.random.once_in(once_in)
    }

    pub(super) fn connect_all(&mut self, node: usize) {
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.connect(node, other);
            self.connect(other, node);
        }
    }

    /// `from` has a connection to `to` now, if both run, belong to the same cluster and nothing is cut this way.
    fn connect(&mut self, from: usize, to: usize) {
        if !self.are_of_one_cluster(from, to) || self.network.cuts.contains(&(from, to)) {
            return;
        }
        let peer = self.machines[to].me.expect("it runs");
        self.network.connections += 1;
        let connection = self.network.connections;
        self.tell(from, PeerEvent::Connected { peer, connection });
    }

    /// Whether both run and belong to the same cluster.
    fn are_of_one_cluster(&self, one: usize, other: usize) -> bool {
        let record = |node: usize| self.machines[node].node.as_ref().map(|node| &node.identity.founding);
        record(one).is_some() && record(one) == record(other)
    }

    pub(super) fn disconnect_all(&mut self, node: usize) {
        let Some(peer) = self.machines[node].me else { return };
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.tell(other, PeerEvent::Disconnected { peer });
        }
    }

    /// A node is told of a connection, in the order in which things happen to it.
    fn tell(&mut self, node: usize, event: PeerEvent) {
        let epoch = self.machines[node].epoch;
        self.plan(Duration::ZERO, Event::Arrive { node, epoch, event: Box::new(event) });
    }

    /// Nothing gets from one to the other for a while; whether the sender notices is left to chance.
    pub(super) fn cut(&mut self, from: usize, to: usize, duration: Duration) {
        if !self.network.cuts.insert((from, to)) {
            return;
        }
        if let Some(peer) = self.machines[to].me.filter(|_| self.random.once_in(2)) {
            self.tell(from, PeerEvent::Disconnected { peer });
        }
        self.plan(duration, Event::Heal { from, to });
    }

    pub(super) fn heal(&mut self, from: usize, to: usize) {
        if self.network.cuts.remove(&(from, to)) {
            self.connect(from, to);
        }
    }
}
