//! Whether what clients saw could have come from one object that does one thing at a time (Herlihy and Wing 1990).
//!
//! ```text
//!  client 1   |--- set 1 -----------|
//!  client 2        |-- get: 1 --|         |--- get: 0 ---|     not linearizable: 1 has been seen before
//!  client 3     |-- set 2 ----- unknown ------------------ ...
//! ```
//!
//! Every operation takes effect at one moment between its call and its return. The search goes through the orders that
//! this allows (Wing and Gong 1993), and never twice through the same operations done with the same state left (Lowe 2017).
//!
//! An operation whose outcome the client never learnt takes effect at any moment after its call, or never. Such operations
//! stay possible for ever, and a crash leaves many; so the search also leaves out what has done the same as an earlier attempt with
//! more of them: whatever could follow could have followed there.
//!
//! Three things leave no choice. A read that fits now can take effect now: wherever else it would fit, it can be left out
//! there. Of unknown operations that ask for the same, the one that was called first can stand for any of them. And an unknown
//! one that leaves no trace in what comes right after it need not have taken effect.
//!
//! Objects that do not touch each other, as the keys of a store, are checked each by itself: a history is linearizable
//! if the history of every object is (Herlihy and Wing, theorem 1), and the search is much shorter.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// The object, as it would be if it were alone in the world.
pub trait Model {
    /// What a client asks for.
    type Input: fmt::Debug + PartialEq;
    /// What it is told.
    type Output: PartialEq + fmt::Debug;
    /// What the object is.
    type State: Clone + Eq + Hash + Default;

    /// Does what is asked.
    fn apply(state: &Self::State, input: &Self::Input) -> (Self::State, Self::Output);

    /// Whether this never changes an object. Need not be known, and makes the search much shorter.
    fn is_read(_input: &Self::Input) -> bool {
        false
    }
}

/// An operation of a client. Times are of one clock, of any unit.
#[derive(Clone, Debug)]
pub struct Operation<I, O> {
    /// When it was called.
    pub called: u64,
    /// When it returned, not before the call, and what the client was told. `None` if that was nothing, or not for certain.
    pub returned: Option<(u64, O)>,
    /// What was asked for.
    pub input: I,
}

/// No order of the operations explains what the clients saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The operations, by their positions in the history, in the order that explains most.
    pub explained: Vec<usize>,
    /// Those that could have come next, and none of which fits.
    pub unexplained: Vec<usize>,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not linearizable: after operations {:?}, in this order, none of ", self.explained)?;
        write!(f, "{:?} can follow", self.unexplained)
    }
}

impl std::error::Error for Contradiction {}

/// Checks the history of one object. The operations may come in any order.
///
/// ```
/// use kv_repl::testing::linearizability::{Model, Operation, check};
///
/// struct Counter;
///
/// impl Model for Counter {
///     type Input = u64;
///     type Output = u64;
///     type State = u64;
///
///     fn apply(state: &u64, add: &u64) -> (u64, u64) {
///         (state + add, state + add)
///     }
/// }
///
/// let operation = |called, returned, output| Operation { called, returned: Some((returned, output)), input: 1 };
/// assert!(check::<Counter>(&[operation(0, 9, 2), operation(1, 5, 1)]).is_ok());
/// assert!(check::<Counter>(&[operation(0, 4, 2), operation(5, 9, 1)]).is_err());
/// ```
///
/// # Errors
///
/// The [`Contradiction`].
pub fn check<M: Model>(history: &[Operation<M::Input, M::Output>]) -> Result<(), Contradiction> {
    let mut by_call: Vec<usize> = (0..history.len()).collect();
    by_call.sort_by_key(|at| history[*at].called);
    let mut search = Search::<M> { history, by_call, seen: HashMap::new() };
    let nothing = M::State::default();
    let mut path = vec![search.step(Done::none(history.len()), nothing.clone(), Vec::new(), nothing)];
    let mut longest = Contradiction { explained: Vec::new(), unexplained: search.positions(&path[0].candidates) };
    while let Some(step) = path.last_mut() {
        if search.is_complete(&step.done) {
            return Ok(());
        }
        let Some(next) = step.candidates.pop() else {
            path.pop();
            continue;
        };
        step.taken = next;
        let Some(step) = search.take(step, next) else { continue };
        let explained: Vec<usize> = path.iter().map(|step| step.taken).collect();
        if explained.len() > longest.explained.len() {
            let (explained, unexplained) = (search.positions(&explained), search.positions(&step.candidates));
            longest = Contradiction { explained, unexplained };
        }
        path.push(step);
    }
    Err(longest)
}

/// The operations that have taken effect.
#[derive(Clone)]
struct Done {
    returned: Places,
    unknown: Places,
}

/// A set of places in the order of calls.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Places(Vec<u64>);

impl Places {
    fn none(count: usize) -> Places {
        Places(vec![0; count.div_ceil(64)])
    }

    fn has(&self, place: usize) -> bool {
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn is_within(&self, other: &Places) -> bool {
        self.0.iter().zip(&other.0).all(|(own, other)| own & !other == 0)
    }
}

impl Done {
    fn none(count: usize) -> Done {
        Done { returned: Places::none(count), unknown: Places::none(count) }
    }

    fn has(&self, place: usize) -> bool {
        self.returned.has(place) || self.unknown.has(place)
    }
}

/// What has been done, what is left then, and what can come next: places in the order of calls.
struct Step<M: Model> {
    done: Done,
    state: M::State,
    candidates: Vec<usize>,
    /// The one that is being tried.
    taken: usize,
    /// The unknown ones that have taken effect since one that returned, and the state before them.
    recent: Vec<usize>,
    state_before: M::State,
}

struct Search<'a, M: Model> {
    history: &'a [Operation<M::Input, M::Output>],
    /// Positions in the history.
    by_call: Vec<usize>,
    /// For what has returned and taken effect, and the state that it left: which unknown ones had taken effect too.
    seen: HashMap<(Places, M::State), Vec<Places>>,
}

impl<M: Model> Search<'_, M> {
    fn at(&self, place: usize) -> &Operation<M::Input, M::Output> {
        &self.history[self.by_call[place]]
    }

    fn positions(&self, places: &[usize]) -> Vec<usize> {
        places.iter().map(|place| self.by_call[*place]).collect()
    }

    /// Next can come whatever was called before any of those that are left has returned.
    fn step(&self, done: Done, state: M::State, recent: Vec<usize>, state_before: M::State) -> Step<M> {
        let mut first_return = u64::MAX;
        let mut candidates = Vec::new();
        for place in (0..self.history.len()).filter(|place| !done.has(*place)) {
            let operation = self.at(place);
            if operation.called > first_return {
                break;
            }
            match &operation.returned {
                Some((_, output))
                    if M::is_read(&operation.input) && M::apply(&state, &operation.input).1 == *output =>
                {
                    return Step { done, state, candidates: vec![place], taken: 0, recent, state_before };
                }
                Some((at, _)) => first_return = first_return.min(*at),
                None if candidates.iter().any(|other| self.is_same_unknown(*other, operation)) => continue,
                None => {}
            }
            candidates.push(place);
        }
        // The last of the list is tried first: the oldest that returned. Unknown ones only where nothing else helps.
        candidates.reverse();
        candidates.sort_by_key(|place| self.at(*place).returned.is_some());
        Step { done, state, candidates, taken: 0, recent, state_before }
    }

    /// Whether the operation at `place` is unknown too, and asks for the same.
    fn is_same_unknown(&self, place: usize, operation: &Operation<M::Input, M::Output>) -> bool {
        let other = self.at(place);
        other.returned.is_none() && other.input == operation.input
    }

    /// Lets an operation take effect, if that gives what the client saw, and something new.
    fn take(&mut self, step: &Step<M>, place: usize) -> Option<Step<M>> {
        let operation = self.at(place);
        let (state, output) = M::apply(&step.state, &operation.input);
        let mut done = step.done.clone();
        match &operation.returned {
            Some((_, seen)) if *seen != output => return None,
            Some(_) => done.returned.insert(place),
            None => done.unknown.insert(place),
        }
        let (is_returned, after) = (operation.returned.is_some(), (state, output));
        if step.recent.iter().any(|unknown| self.leaves_no_trace(step, *unknown, place, &after)) {
            return None;
        }
        let state = after.0;
        let seen = self.seen.entry((done.returned.clone(), state.clone())).or_default();
        if seen.iter().any(|unknown| unknown.is_within(&done.unknown)) {
            return None;
        }
        seen.push(done.unknown.clone());
        let recent = if is_returned { Vec::new() } else { step.recent.iter().copied().chain([place]).collect() };
        let state_before = if is_returned { state.clone() } else { step.state_before.clone() };
        Some(self.step(done, state, recent, state_before))
    }

    /// Whether all is the same after the operation at `place` if this recent unknown one has not taken effect.
    fn leaves_no_trace(&self, step: &Step<M>, unknown: usize, place: usize, after: &(M::State, M::Output)) -> bool {
        let others = step.recent.iter().filter(|other| **other != unknown);
        let before = others.fold(step.state_before.clone(), |state, at| M::apply(&state, &self.at(*at).input).0);
        let (state, output) = M::apply(&before, &self.at(place).input);
        let is_unseen = self.at(place).returned.is_none() || output == after.1;
        state == after.0 && is_unseen
    }

    /// Whether all operations that returned have taken effect.
    fn is_complete(&self, done: &Done) -> bool {
        (0..self.history.len()).all(|place| done.has(place) || self.at(place).returned.is_none())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A register with three operations.
    struct Register;

    #[derive(Clone, Debug, PartialEq)]
    enum Input {
        Get,
        Set(u8),
        /// Sets the second if it holds the first.
        Swap(u8, u8),
    }

    impl Model for Register {
        type Input = Input;
        /// What it held before.
        type Output = u8;
        type State = u8;

        fn apply(state: &u8, input: &Input) -> (u8, u8) {
            match input {
                Input::Get => (*state, *state),
                Input::Set(new) => (*new, *state),
                Input::Swap(old, new) => (if state == old { *new } else { *state }, *state),
            }
        }

        fn is_read(input: &Input) -> bool {
            matches!(input, Input::Get)
        }
    }

    type Seen = Operation<Input, u8>;

    fn seen(called: u64, returned: u64, input: Input, output: u8) -> Seen {
        Operation { called, returned: Some((returned, output)), input }
    }

    fn lost(called: u64, input: Input) -> Seen {
        Operation { called, returned: None, input }
    }

    fn is_fine(history: &[Seen]) -> bool {
        check::<Register>(history).is_ok()
    }

    #[test]
    fn what_is_known_to_be_good_is_good() {
        use Input::{Get, Set, Swap};
        assert!(is_fine(&[]));
        assert!(is_fine(&[lost(3, Set(1))]));
        assert!(is_fine(&[seen(0, 9, Set(1), 0), seen(1, 2, Get, 1), seen(3, 4, Get, 1)]), "before its return");
        assert!(is_fine(&[seen(0, 9, Set(1), 0), seen(1, 2, Get, 0), seen(3, 4, Get, 1)]), "in between");
        assert!(is_fine(&[seen(5, 6, Get, 1), lost(0, Set(1)), seen(1, 2, Get, 0)]), "after a while");
        assert!(is_fine(&[lost(0, Set(1)), seen(1, 2, Get, 0), seen(3, 4, Get, 0)]), "or never");
        assert!(is_fine(&[seen(0, 5, Swap(0, 1), 0), seen(0, 5, Swap(0, 2), 1), seen(6, 7, Get, 1)]), "one wins");
        assert!(is_fine(&[seen(0, 5, Set(1), 0), seen(5, 6, Get, 0)]), "at the same moment is not after it");
    }

    #[test]
    fn what_is_known_to_be_bad_is_bad() {
        use Input::{Get, Set, Swap};
        assert!(!is_fine(&[seen(0, 1, Set(1), 0), seen(2, 3, Get, 0)]), "a stale read");
        assert!(!is_fine(&[seen(0, 9, Set(1), 0), seen(1, 2, Get, 1), seen(3, 4, Get, 0)]), "and back again");
        assert!(!is_fine(&[lost(0, Set(1)), seen(1, 2, Get, 1), seen(3, 4, Get, 0)]), "an unknown one that shows");
        assert!(!is_fine(&[seen(0, 5, Swap(0, 1), 0), seen(0, 5, Swap(0, 2), 0)]), "a lost update: both win");
        assert!(!is_fine(&[seen(0, 1, Get, 1), lost(2, Set(1))]), "a read from the future");
        assert!(!is_fine(&[seen(0, 1, Set(1), 0), seen(2, 3, Set(2), 1), seen(4, 5, Get, 1)]), "a lost write");
        let split = [seen(0, 1, Set(1), 0), seen(2, 6, Set(2), 1), seen(3, 4, Get, 2), seen(5, 6, Get, 1)];
        assert!(!is_fine(&split), "two leaders");
        assert!(!is_fine(&[seen(0, 1, Set(7), 0), seen(2, 3, Get, 8)]), "out of nowhere");
    }

    #[test]
    fn a_contradiction_says_how_far_it_went() {
        let history = [
            seen(4, 5, Input::Get, 0),
            seen(0, 1, Input::Set(1), 0),
            seen(2, 3, Input::Get, 1),
            seen(4, 6, Input::Get, 2),
        ];
        let contradiction = check::<Register>(&history).unwrap_err();
        assert_eq!(contradiction.explained, [1, 2]);
        assert_eq!(contradiction.unexplained, [3, 0]);
    }

    /// Many that overlap, many that nobody knows the end of: the search must not go through all orders.
    #[test]
    fn a_long_history_is_checked_at_once() {
        let mut history = Vec::new();
        for round in 0..200 {
            let now = round * 10;
            history.push(seen(now, now + 9, Input::Set(round as u8), (round as u8).wrapping_sub(1).min(198)));
            history.extend((0..4).map(|more| seen(now + 1 + more, now + 12, Input::Get, round as u8)));
        }
        history[0] = seen(0, 9, Input::Set(0), 0);
        history.extend((0..10).map(|more| lost(more * 200, Input::Set(250))));
        assert!(is_fine(&history));
        history.push(seen(1990, 1991, Input::Get, 3));
        assert!(!is_fine(&history));
    }

    /// All orders, and all choices of what took effect of that which did not return.
    fn brute_force(history: &[Seen], done: &mut Vec<usize>, state: u8) -> bool {
        let is_left = |at: &usize| !done.contains(at);
        let left: Vec<usize> = (0..history.len()).filter(is_left).collect();
        if left.iter().all(|at| history[*at].returned.is_none()) {
            return true;
        }
        left.iter().any(|&next| {
            let is_after = |other: &usize| {
                history[*other].returned.as_ref().is_some_and(|(returned, _)| *returned < history[next].called)
            };
            let (state, output) = Register::apply(&state, &history[next].input);
            let is_seen = history[next].returned.as_ref().is_none_or(|(_, seen)| *seen == output);
            if left.iter().any(is_after) || !is_seen {
                return false;
            }
            done.push(next);
            let is_fine = brute_force(history, done, state);
            done.pop();
            is_fine
        })
    }

    fn operation() -> impl Strategy<Value = Seen> {
        let input = prop_oneof![
            2 => Just(Input::Get),
            2 => (1u8..3).prop_map(Input::Set),
            1 => (0u8..3, 1u8..3).prop_map(|(old, new)| Input::Swap(old, new)),
        ];
        (0u64..12, proptest::option::weighted(0.8, (0u64..6, 0u8..3)), input).prop_map(|(called, returned, input)| {
            Operation { called, returned: returned.map(|(after, output)| (called + after, output)), input }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn agrees_with_brute_force(history in proptest::collection::vec(operation(), 0..7)) {
            prop_assert_eq!(is_fine(&history), brute_force(&history, &mut Vec::new(), 0));
        }
    }

    /// The random histories are of both kinds, or the comparison would say little.
    #[test]
    fn random_histories_are_good_and_bad() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let strategy = proptest::collection::vec(operation(), 3..7);
        let good = (0..500).filter(|_| {
            let tree = strategy.new_tree(&mut runner).expect("a history");
            is_fine(&proptest::strategy::ValueTree::current(&tree))
        });
        let good = good.count();
        assert!((50..450).contains(&good), "{good} of 500 are good");
    }
}
