use std::collections::BTreeMap;

use kv_wal::Index;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::digest::Secret;
use crate::pair::Version;

type Model = BTreeMap<Vec<u8>, u64>;

/// One step of a history. Keys are few, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Insert(Vec<u8>),
    Remove(Vec<u8>),
    /// Removes `count` keys in order, which empties whole subtrees.
    RemoveRun(Vec<u8>, usize),
    View,
}

/// A key of one or two bytes out of about a thousand, or the empty one.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..32, 0..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => key().prop_map(Step::Insert),
        4 => key().prop_map(Step::Remove),
        1 => (key(), 0usize..60).prop_map(|(key, count)| Step::RemoveRun(key, count)),
        1 => Just(Step::View),
    ];
    vec(step, 0..600)
}

const VALUE: [u8; 600] = [b'v'; 600];

fn secret() -> Option<Secret> {
    Some(Secret::new([9; 32]))
}

/// Most values are short; some make a record that lies outside its leaf.
fn pair(number: u64) -> PairRef<'static> {
    let value_bytes = if number.is_multiple_of(7) { 300 + number as usize % 300 } else { number as usize % 5 };
    let deadline_ms = Some(number).filter(|number| number.is_multiple_of(3));
    let version = Version { index: Index::new(number), op: (number % 2) as u32 };
    PairRef::new(&VALUE[..value_bytes], version, Index::ZERO, deadline_ms)
}

fn tree_of(model: &Model) -> Tree {
    let mut builder = Builder::new(secret());
    model.iter().for_each(|(key, number)| builder.push(key, &pair(*number)));
    builder.finish()
}

fn run(tree: &mut Tree, model: &mut Model, number: u64, step: &Step) {
    match step {
        Step::Insert(key) => {
            let replaced = tree.insert(key, pair(number)).map(|old| old.deadline_ms);
            assert_eq!(replaced, model.insert(key.clone(), number).map(|number| pair(number).deadline_ms));
        }
        Step::Remove(key) => remove(tree, model, key),
        Step::RemoveRun(from, count) => {
            let run: Vec<_> = model.range(from.clone()..).take(*count).map(|(key, _)| key.clone()).collect();
            run.iter().for_each(|key| remove(tree, model, key));
        }
        Step::View => {}
    }
}

fn remove(tree: &mut Tree, model: &mut Model, key: &[u8]) {
    let removed = tree.remove(key);
    assert_eq!(removed, model.remove(key).map(|number| pair(number).to_pair()));
}

/// The tree holds what the model holds, and so do its sums.
fn check(tree: &Tree, model: &Model) {
    tree.invariants();
    let found: Vec<_> = tree.range(b"", None).map(|(key, pair)| (key.to_vec(), pair)).collect();
    let expected: Vec<_> = model.iter().map(|(key, number)| (key.clone(), pair(*number))).collect();
    assert_eq!(found, expected);
    assert_eq!(tree.total(), naive_digest(model, b"", None));
}

fn naive_range<'a>(
    model: &'a Model,
    from: &'a [u8],
    to: Option<&'a [u8]>,
) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a u64)> {
    model.iter().filter(move |(key, _)| &key[..] >= from && to.is_none_or(|to| &key[..] < to))
}

fn naive_digest(model: &Model, from: &[u8], to: Option<&[u8]>) -> RangeDigest {
    naive_range(model, from, to).map(|(key, number)| digest_of(key, &pair(*number), secret().as_ref())).sum()
}

fn model() -> impl Strategy<Value = Model> {
    proptest::collection::btree_map(key(), 0u64..1000, 0..500)
}

proptest! {
    #[test]
    fn agrees_with_an_ordered_map_and_views_never_change(steps in steps()) {
        let (mut tree, mut model) = (Tree::new(secret()), Model::new());
        let mut views = Vec::new();
        for (number, step) in (0..).zip(&steps) {
            run(&mut tree, &mut model, number, step);
            if matches!(step, Step::View) {
                views.push((tree.clone(), model.clone()));
            }
            if number % 64 == 0 {
                tree.invariants();
            }
        }
        check(&tree, &model);
        views.iter().for_each(|(view, model)| check(view, model));
    }

    #[test]
    fn ranges_agree_with_filtering(
        model in model(),
        from in key(),
        to in proptest::option::of(key()),
        ends in vec(any::<bool>(), 0..80),
    ) {
        let tree = tree_of(&model);
        prop_assert_eq!(tree.digest(&from, to.as_deref()), naive_digest(&model, &from, to.as_deref()));

        let mut expected = naive_range(&model, &from, to.as_deref());
        let mut range = tree.range(&from, to.as_deref());
        prop_assert_eq!(range.len(), naive_range(&model, &from, to.as_deref()).count());
        for front in ends {
            let (found, expected) =
                if front { (range.next(), expected.next()) } else { (range.next_back(), expected.next_back()) };
            prop_assert_eq!(found, expected.map(|(key, number)| (&key[..], pair(*number))));
        }
        let rest: Vec<_> = range.map(|(key, _)| key.to_vec()).collect();
        let expected: Vec<_> = expected.map(|(key, _)| key.clone()).collect();
        prop_assert_eq!(rest, expected);
    }

    #[test]
    fn ranks_agree_with_positions(model in model(), probe in key()) {
        let tree = tree_of(&model);
        for (rank, key) in (0..).zip(model.keys()) {
            prop_assert_eq!(tree.nth(rank).unwrap().0, &key[..]);
            prop_assert_eq!(tree.rank(key), rank);
        }
        prop_assert!(tree.nth(model.len() as u64).is_none());
        prop_assert!(tree.nth(u64::MAX).is_none());
        prop_assert_eq!(tree.rank(&probe) as usize, model.range(..probe).count());
    }

    #[test]
    fn a_built_tree_is_a_tree(model in model(), steps in vec(key().prop_map(Step::Remove), 0..100)) {
        let (mut tree, mut model) = (tree_of(&model), model);
        check(&tree, &model);
        steps.iter().for_each(|step| run(&mut tree, &mut model, 0, step));
        check(&tree, &model);
    }
}

/// Every size around the points where a level is added or its last node runs short.
#[test]
fn trees_of_every_size_are_built() {
    let mut model = Model::new();
    for number in 0u64..500 {
        check(&tree_of(&model), &model);
        model.insert((number as u16).to_be_bytes().to_vec(), number);
    }
}

#[test]
fn rising_and_falling_keys_leave_no_underfull_node() {
    let key = |number: u64| (number as u32).to_be_bytes();
    let mut tree = Tree::new(secret());
    for number in 0..3000 {
        tree.insert(&key(number), pair(number));
    }
    tree.invariants();
    for number in (0..3000).rev() {
        assert!(tree.remove(&key(number)).is_some());
        if number % 50 == 0 {
            tree.invariants();
        }
    }
    assert_eq!(tree.total(), RangeDigest::default());
}

/// Without a view nothing is copied; with one, one node a level.
#[test]
fn only_shared_nodes_are_copied() {
    let model: Model = (0..1000u64).map(|number| ((number as u16).to_be_bytes().to_vec(), number)).collect();
    let mut tree = tree_of(&model);
    let root = Arc::as_ptr(&tree.root.node);
    tree.insert(&[0, 1], pair(7));
    tree.remove(&[0, 2]);
    assert_eq!(Arc::as_ptr(&tree.root.node), root);

    let view = tree.clone();
    assert!(tree.remove(b"absent").is_none());
    assert_eq!(Arc::as_ptr(&tree.root.node), root, "an absent key copies nothing");
    tree.insert(&[0, 1], pair(8));
    assert_ne!(Arc::as_ptr(&tree.root.node), root);
    let (Node::Inner(new), Node::Inner(old)) = (&*tree.root.node, &*view.root.node) else { panic!("a deep tree") };
    let shared = new.iter().zip(old.iter()).filter(|(new, old)| Arc::ptr_eq(&new.node, &old.node)).count();
    assert_eq!(shared, old.len() - 1);
}
