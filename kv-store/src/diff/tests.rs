use std::collections::BTreeMap;

use kv_wal::Index;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::op::{Condition, Deadline, Op};
use crate::store::Store;

fn put(store: &mut Store, index: u64, key: &[u8], value: &[u8]) {
    let op = Op::Put { key, value, condition: Condition::Always, deadline: Deadline::None, want_previous: false };
    store.apply(Index::new(index), 0, &op.encode().unwrap());
}

fn delete(store: &mut Store, key: &[u8]) {
    store.apply(Index::new(u64::MAX), 0, &Op::Delete { keys: vec![key] }.encode().unwrap());
}

/// A store with these keys, each with the index of its write.
fn store_of(model: &BTreeMap<Vec<u8>, u64>) -> Store {
    let mut store = Store::new([3; 32]);
    model.iter().for_each(|(key, index)| put(&mut store, *index, key, b"value"));
    store
}

fn numbered(count: u32) -> BTreeMap<Vec<u8>, u64> {
    (0..count).map(|number| (number.to_be_bytes().to_vec(), u64::from(number))).collect()
}

fn naive(a: &BTreeMap<Vec<u8>, u64>, b: &BTreeMap<Vec<u8>, u64>) -> Vec<Difference> {
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    keys.into_iter()
        .filter_map(|key| {
            let kind = match (a.get(key), b.get(key)) {
                (Some(left), Some(right)) if left == right => return None,
                (Some(_), Some(_)) => DifferenceKind::Differs,
                (Some(_), None) => DifferenceKind::OnlyInA,
                (None, _) => DifferenceKind::OnlyInB,
            };
            Some(Difference { key: Bytes::copy_from_slice(key), kind })
        })
        .collect()
}

/// Cuts every range right after its beginning, where nothing is.
struct CutsNothingOff(ReadView);

impl DigestSource for CutsNothingOff {
    type Error = Infallible;

    fn digest_of(&mut self, range: &KeyRange) -> Result<RangeDigest, Infallible> {
        self.0.digest_of(range)
    }

    fn middle_of(&mut self, range: &KeyRange) -> Result<Option<Bytes>, Infallible> {
        Ok(Some(Bytes::from([&range.from[..], &[0]].concat())))
    }

    fn pairs_of(&mut self, range: &KeyRange) -> Result<Vec<PairSummary>, Infallible> {
        self.0.pairs_of(range)
    }
}

/// Counts the questions, and may answer wrongly.
struct Watched<F: FnMut(&mut RangeDigest)> {
    view: ReadView,
    questions: usize,
    bend: F,
}

impl<F: FnMut(&mut RangeDigest)> DigestSource for Watched<F> {
    type Error = Infallible;

    fn digest_of(&mut self, range: &KeyRange) -> Result<RangeDigest, Infallible> {
        self.questions += 1;
        let mut digest = self.view.digest_of(range)?;
        (self.bend)(&mut digest);
        Ok(digest)
    }

    fn middle_of(&mut self, range: &KeyRange) -> Result<Option<Bytes>, Infallible> {
        self.questions += 1;
        self.view.middle_of(range)
    }

    fn pairs_of(&mut self, range: &KeyRange) -> Result<Vec<PairSummary>, Infallible> {
        self.questions += 1;
        self.view.pairs_of(range)
    }
}

fn model() -> impl Strategy<Value = BTreeMap<Vec<u8>, u64>> {
    btree_map(vec(0u8..12, 0..4), 0u64..3, 0..400)
}

proptest! {
    #[test]
    fn finds_what_a_naive_comparison_finds(a in model(), b in model(), limit in 0usize..500) {
        let mut expected = naive(&a, &b);
        expected.truncate(limit);
        let found = diff(&mut store_of(&a).view(), &mut store_of(&b).view(), limit).unwrap();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn finds_few_changes_in_many_keys(changes in vec((0u32..3000, 0u8..3), 0..6)) {
        let a = numbered(2000);
        let (mut b, mut store) = (a.clone(), store_of(&a));
        for (number, change) in changes {
            let key = number.to_be_bytes().to_vec();
            if change == 0 {
                delete(&mut store, &key);
                b.remove(&key);
            } else {
                delete(&mut store, &key);
                put(&mut store, 5000, &key, b"value");
                b.insert(key, 5000);
            }
        }
        let found = diff(&mut store_of(&a).view(), &mut store.view(), usize::MAX).unwrap();
        prop_assert_eq!(found, naive(&a, &b));
    }

    /// A side whose sums drift ends the search with an error or a result, and never hangs or panics.
    #[test]
    fn answers_that_contradict_each_other_end_it(
        bends in vec(prop_oneof![3 => Just(0u64), 1 => any::<u64>(), 1 => 0u64..300], 1..30),
    ) {
        let mut bends = bends.into_iter().cycle();
        let bend = |digest: &mut RangeDigest| digest.count = digest.count.wrapping_add(bends.next().unwrap());
        let mut liar = Watched { view: store_of(&numbered(300)).view(), questions: 0, bend };
        let _ = diff(&mut store_of(&numbered(290)).view(), &mut liar, usize::MAX);
        prop_assert!(liar.questions < 2000);
    }
}

#[test]
fn one_difference_costs_a_logarithm_of_questions() {
    let a = numbered(20_000);
    let mut b = store_of(&a);
    put(&mut b, 1, &12_345u32.to_be_bytes(), b"other");
    let mut b = Watched { view: b.view(), questions: 0, bend: |_| {} };
    let found = diff(&mut store_of(&a).view(), &mut b, 10).unwrap();
    assert_eq!(found.len(), 1);
    assert!(b.questions <= 2 + 2 * 15, "{} questions", b.questions);
}

#[test]
fn a_difference_in_version_alone_is_one() {
    let (mut a, mut b) = (Store::new([3; 32]), Store::new([3; 32]));
    put(&mut a, 1, b"k", b"same");
    put(&mut b, 2, b"k", b"same");
    let found = diff(&mut a.view(), &mut b.view(), 10).unwrap();
    assert_eq!(found, [Difference { key: Bytes::from_static(b"k"), kind: DifferenceKind::Differs }]);
}

#[test]
fn a_side_with_wrong_sums_is_named() {
    let bend = |digest: &mut RangeDigest| digest.sum = Sum::from_bytes([1; 32]);
    let mut liar = Watched { view: store_of(&numbered(10)).view(), questions: 0, bend };
    let found = diff(&mut store_of(&numbered(10)).view(), &mut liar, 10);
    assert_eq!(found, Err(DiffError::Inconsistent { first: false }));
}

#[test]
fn a_side_that_cuts_nothing_off_is_named() {
    let mut liar = CutsNothingOff(store_of(&numbered(300)).view());
    let found = diff(&mut liar, &mut store_of(&numbered(290)).view(), 10);
    assert_eq!(found, Err(DiffError::Inconsistent { first: true }));
}
