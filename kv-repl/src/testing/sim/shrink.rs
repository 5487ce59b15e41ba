//! Makes a run that has found something smaller, so that somebody can read it.
//!
//! Every event of a run depends on all before it, so one cannot be taken out and the rest stay as it was. What is looked for
//! are smaller [`Settings`] (fewer kinds of faults, fewer clients and nodes, less time) under which some seed near the
//! first finds the same thing: if it is a real one, there is such a seed.

use std::time::Duration;

use super::{Fault, Settings};

/// Seeds that are tried under smaller settings before they count as too small.
const TRIES: u64 = 30;

/// Settings and a seed that find something.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// Under which settings.
    pub settings: Settings,
    /// What is found.
    pub said: String,
}

/// Looks for the smallest settings under which a seed finds what `seed` finds under `settings`. `find` runs a seed and says
/// what it finds, if anything. `None` if the first one finds nothing.
///
/// ```
/// use kv_repl::testing::sim::{Fault, Settings, shrink};
///
/// // A mistake that shows with two clients and more, if messages are lost.
/// let find = |seed: u64, settings: &Settings| {
///     let is_found = settings.clients >= 2 && !settings.without.contains(&Fault::Loss) && seed % 3 == 0;
///     is_found.then(|| format!("entry {seed} is gone"))
/// };
/// let smallest = shrink(6, &Settings::default(), find).expect("6 finds it");
/// assert_eq!((smallest.settings.clients, smallest.settings.without.len()), (2, Fault::ALL.len() - 1));
/// assert_eq!(smallest.seed % 3, 0);
/// ```
pub fn shrink(
    seed: u64,
    settings: &Settings,
    mut find: impl FnMut(u64, &Settings) -> Option<String>,
) -> Option<Finding> {
    let said = find(seed, settings)?;
    let mut best = Finding { seed, settings: settings.clone(), said };
    loop {
        let mut has_shrunk = false;
        for step in steps(&best.settings) {
            // From what is best by now.
            let Some(settings) = step(&best.settings) else { continue };
            let found = (best.seed..best.seed + TRIES).find_map(|seed| {
                let said = find(seed, &settings).filter(|said| kind(said) == kind(&best.said))?;
                Some((seed, said))
            });
            if let Some((seed, said)) = found {
                (best, has_shrunk) = (Finding { seed, settings, said }, true);
            }
        }
        if !has_shrunk {
            return Some(best);
        }
    }
}

/// What a finding is, without the numbers in it, and the lists.
fn kind(said: &str) -> String {
    let end = said.find(['\n', '[']).unwrap_or(said.len());
    said[..end].chars().filter(|c| !c.is_ascii_digit()).collect()
}

type Step = Box<dyn Fn(&Settings) -> Option<Settings>>;

/// The ways to make settings smaller, each of which may not be possible.
fn steps(settings: &Settings) -> Vec<Step> {
    let left = Fault::ALL.into_iter().filter(|fault| !settings.without.contains(fault));
    let without = left.map(|fault| {
        let step: Step = Box::new(move |settings| {
            let mut smaller = settings.clone();
            smaller.without.push(fault);
            Some(smaller)
        });
        step
    });
    let less: [Step; 5] = [
        Box::new(|settings| settings.noise.then(|| Settings { noise: false, ..settings.clone() })),
        Box::new(|settings| (settings.nodes > 3).then(|| Settings { nodes: 3, ..settings.clone() })),
        Box::new(|settings| {
            (settings.clients > 1).then(|| Settings { clients: settings.clients / 2, ..settings.clone() })
        }),
        Box::new(|settings| {
            (settings.clients > 1).then(|| Settings { clients: settings.clients - 1, ..settings.clone() })
        }),
        Box::new(|settings| {
            let shorter = settings.faults_for * 2 / 3;
            (shorter > Duration::from_millis(500)).then(|| Settings { faults_for: shorter, ..settings.clone() })
        }),
    ];
    less.into_iter().chain(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_finding_is_not_the_same() {
        let find = |_: u64, settings: &Settings| {
            let has = |fault| !settings.without.contains(&fault);
            match (has(Fault::Wipe), has(Fault::Kill)) {
                (true, _) => Some("node 3 has another state at entry 17".to_owned()),
                (false, true) => Some("a node spins".to_owned()),
                (false, false) => None,
            }
        };
        let smallest = shrink(1, &Settings::default(), find).expect("it is found");
        assert!(smallest.said.contains("another state"));
        assert!(!smallest.settings.without.contains(&Fault::Wipe));
        assert_eq!(smallest.settings.without.len(), Fault::ALL.len() - 1);
        assert!(!smallest.settings.noise && smallest.settings.clients == 1);
        let shortest = smallest.settings.faults_for;
        assert!(shortest < Duration::from_secs(1), "{shortest:?}");
    }

    #[test]
    fn what_finds_nothing_is_not_shrunk() {
        assert!(shrink(1, &Settings::default(), |_, _| None).is_none());
    }

    #[test]
    fn settings_are_words_and_words_are_settings() {
        let mut settings = Settings { nodes: 5, clients: 3, noise: false, ..Settings::default() };
        settings.faults_for = Duration::from_millis(1250);
        for without in [vec![], vec![Fault::Loss, Fault::CheckpointLoss]] {
            settings.without = without;
            let words = settings.to_string();
            let again: Settings = words.parse().expect("as it was written");
            assert_eq!(again.to_string(), words);
            assert_eq!(
                (again.nodes, again.faults_for, again.without),
                (5, settings.faults_for, settings.without.clone())
            );
        }
        for nonsense in ["nodes", "nodes=x", "without=Loss,Nothing", "more=1"] {
            assert!(nonsense.parse::<Settings>().is_err(), "{nonsense}");
        }
        assert_eq!("".parse::<Settings>().expect("the usual ones").clients, Settings::default().clients);
    }
}
