use bytes::Bytes;

use super::Random;
use crate::StateMachine;
use crate::testing::linearizability::Model;

/// What the clients do, and how it is judged: the embedder's state machine, and a model of each of its objects.
pub trait Workload {
    /// What is replicated.
    type Machine: StateMachine;
    /// One object in it, alone in the world.
    type Model: Model;

    /// What a client does next.
    fn next(&mut self, random: &mut Random) -> Request<<Self::Model as Model>::Input>;

    /// A command that concerns none of the objects. Now and then a node gets a great many of them at once, and nobody waits
    /// for the answers. None by default.
    fn noise(&mut self, _random: &mut Random) -> Option<Bytes> {
        None
    }

    /// What the state machine's answer to a command says about the object.
    fn outcome(outcome: <Self::Machine as StateMachine>::Outcome) -> <Self::Model as Model>::Output;

    /// What a client reads, where the state is this one.
    fn look(
        machine: &Self::Machine,
        object: u64,
        input: &<Self::Model as Model>::Input,
    ) -> <Self::Model as Model>::Output;

    /// A read that is done of every object at the end.
    fn last_read() -> <Self::Model as Model>::Input;
}

/// An operation of a client.
#[derive(Clone, Debug)]
pub struct Request<I> {
    /// On which object.
    pub object: u64,
    /// What is asked, as the model understands it.
    pub input: I,
    /// The same for the state machine; `None` if it is a read.
    pub command: Option<Bytes>,
}
