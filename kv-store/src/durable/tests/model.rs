//! Ops and reopenings at random, beside a plain store.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Call(Vec<Op<'static>>),
    Time(u64),
    Checkpoint,
    RemoveExpired,
    /// Dropped or closed, and opened again.
    Reopen {
        closes: bool,
    },
}

fn key() -> impl Strategy<Value = &'static [u8]> {
    proptest::sample::select(vec![b"a".as_slice(), b"b", b"c", b"n", b""])
}

fn op() -> impl Strategy<Value = Op<'static>> {
    let value = (0..4096_usize).prop_map(|bytes| -> &'static [u8] { vec![b'x'; bytes].leak() });
    let deadline = prop_oneof![Just(Deadline::None), (0..2_000_u64).prop_map(Deadline::At)];
    prop_oneof![
        4 => (key(), value, deadline).prop_map(|(key, value, deadline)| put_op(key, value, deadline)),
        1 => key().prop_map(|key| Op::Increment { key, by: 3 }),
        1 => key().prop_map(|key| Op::Delete { keys: vec![key] }),
        1 => key().prop_map(|key| Op::Append { key, value: b"12" }),
        1 => Just(Op::Clear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(op(), 1..4).prop_map(Step::Call),
        3 => (0..200_u64).prop_map(Step::Time),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::RemoveExpired),
        2 => any::<bool>().prop_map(|closes| Step::Reopen { closes }),
    ]
}

fn run(steps: &[Step]) {
    let bench = Bench::new();
    let options = Options { checkpoint_log_bytes: 24 << 10, ..SMALL };
    let (mut store, _) = bench.open(options).unwrap();
    let mut twin = Twin::new(secret_of(&store));
    let mut now_ms = 0;
    for step in steps {
        match step {
            Step::Call(ops) => {
                let made = Call { at_ms: now_ms, ops: ops.clone() };
                twin.apply(&made);
                assert_eq!(call(&bench, &store, &made).unwrap(), *twin.outcomes.last().unwrap());
            }
            // Also back.
            Step::Time(ahead) => now_ms = (now_ms + ahead).saturating_sub(40),
            Step::Checkpoint => drop(store.checkpoint().unwrap()),
            Step::RemoveExpired => {
                bench.at(now_ms);
                store.remove_expired().unwrap();
                twin.remove_expired(now_ms);
            }
            Step::Reopen { closes } => {
                if *closes {
                    store.close().unwrap();
                } else {
                    drop(store);
                }
                let recovered;
                (store, recovered) = bench.open(options).unwrap();
                assert_eq!(recovered.last, twin.last().0);
                assert!(recovered.damaged_checkpoints.is_empty());
                assert!(bench.checkpoints().len() <= 2);
            }
        }
        assert_eq!(state_of(&store), twin.last());
        assert_eq!(store.view().audit(), store.view().range_digest(b"", None));
    }
}

impl Twin {
    /// The clock entries that the durable store writes.
    fn remove_expired(&mut self, now_ms: u64) {
        while self.store.next_deadline_ms().is_some_and(|at| at <= now_ms.max(self.store.clock_ms())) {
            self.stamp_ms = self.stamp_ms.max(now_ms);
            self.store.advance_clock(self.stamp_ms);
            self.states.push((self.next, self.store.digest()));
            self.next = self.next.next();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_durable_store_is_a_store(steps in proptest::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}
