use super::*;

fn verdict(differences: usize, obstacles: usize) -> Verdict {
    Verdict {
        index: Index::new(7),
        nodes: Vec::new(),
        differences: vec![Difference::Audit { node: 1 }; differences],
        obstacles: vec!["node 2: cannot be reached".to_owned(); obstacles],
    }
}

#[test]
fn what_does_not_answer_is_not_taken_for_equal() {
    assert_eq!(verdict(0, 0).matches(), Some(true));
    assert_eq!(verdict(0, 1).matches(), None);
    assert_eq!(verdict(1, 0).matches(), Some(false));
    assert_eq!(verdict(1, 1).matches(), Some(false));
}

#[test]
fn a_difference_is_said_in_one_line() {
    let key = Difference::Key { node: 2, reference: 1, key: "a\\x00".to_owned(), how: "missing here" };
    assert_eq!(key.to_string(), "node 2: key \"a\\x00\": missing here (compared with node 1)");
    let json = serde_json::to_value(&key).unwrap();
    assert_eq!(json, json!({"kind": "key", "node": 2, "reference": 1, "key": "a\\x00", "how": "missing here"}));
}
