//! Scenarios in a small language, with transcripts: what is done, step by step, and what every node then did.
//!
//! Nothing happens by itself: messages wait until they are delivered, clocks move when a node is told that its time is up.
//! The files are in `testdata/scenarios`. A line that begins with `>` is a command, the lines below it are its transcript.
//! `KV_UPDATE_SCENARIOS=1` writes the transcripts anew; assertions hold all the same.
//!
//! | command | what happens |
//! |---|---|
//! | `nodes 3 [spares 1] [lease 400]` | a cluster, and others that belong to nothing yet; a lease in ms |
//! | `elect 1` | `timeout 1`, `run`, and node 1 leads |
//! | `timeout 1` | the next moment that node 1 waits for has come |
//! | `beat 1 5` | as many times `timeout 1` and `run` |
//! | `wait 600` | as many milliseconds pass, and nobody is told |
//! | `propose 1 text` | a command |
//! | `read 1`, `lease 1` | a read by ReadIndex, or from the lease |
//! | `change 1 voters 1,2,3 [learners 4]`, `transfer 1 2` | a change of membership, leadership handed over |
//! | `deliver 1 2`, `drop 1 2`, `double 1 2` | the messages from 1 to 2 that wait: come, are lost, will come twice |
//! | `first 1 2` | the first of them comes |
//! | `log 1 1,1,2 term 3` | node 1 starts in term 3 with entries of these terms |
//! | `sync 1` | what node 1 has written is durable |
//! | `settle`, `run` | everything is synced and delivered until nothing waits; `run` does not say what was sent |
//! | `cut 1 2`, `heal` | messages between two nodes do not arrive; all do again |
//! | `hang 1`, `unhang 1` | its disk takes writes, and no sync returns |
//! | `crash 1`, `restart 1` | with the loss of what is not synced |
//! | `wipe 1`, `lose 1 4..6` | its disk is another one; entries on it cannot be read any more |
//! | `checkpoint 1` | it writes one, and truncates its log |
//! | `leader 1`, `leader none` | who leads, in the latest term |
//! | `expect 1 FIELD VALUE` | `term`, `committed`, `applied`, `last`, `role`, `voters`, `learners`, `match:2`, `damaged` |

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::sim::{Sim, member};
use crate::raft::Options;
use crate::types::{Configuration, Member};

struct Scenario {
    sim: Sim,
    name: String,
}

/// Runs a file; gives it as it should be.
fn run(name: &str, text: &str) -> String {
    let mut scenario = Scenario { sim: Sim::manual(3, 0, Options::default()), name: name.to_owned() };
    let mut written = String::new();
    for line in text.lines() {
        match line.strip_prefix("> ") {
            None if line.starts_with("  ") => {}
            None => writeln!(written, "{line}").expect("a string takes it"),
            Some(command) => {
                writeln!(written, "{line}").expect("a string takes it");
                scenario.execute(command);
                for said in std::mem::take(&mut scenario.sim.trace) {
                    writeln!(written, "  {said}").expect("a string takes it");
                }
            }
        }
    }
    written
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is a number"))
}

fn node(word: &str) -> usize {
    number(word) as usize - 1
}

impl Scenario {
    fn execute(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let sim = &mut self.sim;
        match words[..] {
            ["nodes", count, ref rest @ ..] => self.begin(number(count) as usize, rest),
            ["elect", one] => self.elect(node(one)),
            ["timeout", one] => sim.time_out(node(one)),
            ["beat", one, count] => (0..number(count)).for_each(|_| {
                self.sim.time_out(node(one));
                self.run_quietly();
            }),
            ["wait", ms] => sim.now += Duration::from_millis(number(ms)),
            ["propose", one, text] => {
                if !sim.propose(node(one), text) {
                    sim.trace.push("refused".to_owned());
                }
            }
            ["read", one] => sim.read(node(one)),
            ["lease", one] => {
                let before = sim.lease_reads;
                sim.read_by_lease(node(one));
                sim.trace.push(if sim.lease_reads > before { "may read" } else { "has no lease" }.to_owned());
            }
            ["change", one, "voters", voters, ref rest @ ..] => self.change(node(one), voters, rest),
            ["transfer", one, other] => {
                let (now, to) = (sim.now, member(node(other)).id);
                if let Err(error) = sim.raft(node(one)).transfer_leadership(now, to) {
                    sim.trace.push(format!("refused: {error}"));
                }
                sim.drain(node(one));
            }
            ["deliver", one, other] => sim.deliver(node(one), node(other), usize::MAX),
            ["first", one, other] => sim.deliver(node(one), node(other), 1),
            ["log", one, terms, "term", term] => sim.set_log(node(one), terms.split(',').map(number), number(term)),
            ["drop", one, other] => sim.discard(node(one), node(other)),
            ["double", one, other] => sim.double(node(one), node(other)),
            ["sync", one] => sim.sync(node(one)),
            ["settle"] => sim.settle(),
            ["run"] => self.run_quietly(),
            ["cut", one, other] => {
                sim.cut(node(one), node(other));
                sim.cut(node(other), node(one));
            }
            ["heal"] => sim.heal_all(),
            ["hang", one] => sim.nodes[node(one)].hangs = true,
            ["unhang", one] => sim.nodes[node(one)].hangs = false,
            ["crash", one] => sim.crash_losing_all(node(one)),
            ["restart", one] => sim.start(node(one)),
            ["wipe", one] => {
                sim.wipe(node(one));
                sim.start(node(one));
            }
            ["lose", one, range] => {
                let (first, last) = range.split_once("..").expect("a range");
                sim.lose(node(one), number(first)..=number(last));
                sim.start(node(one));
            }
            ["checkpoint", one] => sim.checkpoint(node(one)),
            ["leader", "none"] => assert_eq!(sim.leader(), None, "{}: {command}", self.name),
            ["leader", one] => assert_eq!(sim.leader(), Some(node(one)), "{}: {command}", self.name),
            ["expect", one, field, value] => {
                let found = self.field(node(one), field);
                assert_eq!(found, value, "{}: {command}\n{}", self.name, self.sim.describe());
            }
            _ => panic!("{}: no such command: {command}", self.name),
        }
    }

    fn begin(&mut self, count: usize, rest: &[&str]) {
        let (mut spares, mut options) = (0, Options::default());
        for pair in rest.chunks(2) {
            match pair {
                ["spares", spare] => spares = number(spare) as usize,
                ["lease", ms] => options.lease = Some(Duration::from_millis(number(ms))),
                _ => panic!("{}: {pair:?}", self.name),
            }
        }
        self.sim = Sim::manual(count, spares, options);
    }

    fn elect(&mut self, one: usize) {
        self.sim.time_out(one);
        self.run_quietly();
        assert_eq!(self.sim.leader(), Some(one), "{}: elected", self.name);
    }

    /// Like `settle`, without the messages in the transcript.
    fn run_quietly(&mut self) {
        let before = self.sim.trace.len();
        self.sim.settle();
        let said = self.sim.trace.split_off(before);
        self.sim.trace.extend(said.into_iter().filter(|line| !line.contains(" -> ")));
    }

    fn change(&mut self, one: usize, voters: &str, rest: &[&str]) {
        let members = |list: &str| list.split(',').map(|id| self.sim.nodes[node(id)].me).collect::<Vec<Member>>();
        let mut target = Configuration::new(members(voters));
        if let ["learners", learners] = rest {
            target = members(learners).into_iter().fold(target, |of, learner| of.with_learner(learner));
        }
        let now = self.sim.now;
        if let Err(error) = self.sim.raft(one).change_membership(now, &target) {
            self.sim.trace.push(format!("refused: {error}"));
        }
        self.sim.drain(one);
    }

    fn field(&mut self, one: usize, field: &str) -> String {
        let applied = self.sim.nodes[one].applied.len();
        let raft = self.sim.raft(one);
        let ids = |list: &[Member]| {
            let ids: Vec<String> = list.iter().map(|member| member.id.to_string()).collect();
            if ids.is_empty() { "none".to_owned() } else { ids.join(",") }
        };
        match field {
            "term" => raft.term().to_string(),
            "committed" => raft.committed().to_string(),
            "applied" => applied.to_string(),
            "last" => raft.last().to_string(),
            "role" => format!("{:?}", raft.role()),
            "voters" => ids(raft.configuration().voters()),
            "outgoing" => ids(raft.configuration().outgoing()),
            "learners" => ids(raft.configuration().learners()),
            "damaged" => raft.is_damaged().to_string(),
            field => {
                let other = field.strip_prefix("match:").map(node).expect("a field");
                let peers = raft.status().peers;
                let peer = peers.iter().find(|peer| peer.member.id == member(other).id).expect("a peer");
                peer.match_index.to_string()
            }
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "a transcript is read to the end")]
fn every_scenario_goes_as_its_transcript_says() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/scenarios");
    let is_update = std::env::var_os("KV_UPDATE_SCENARIOS").is_some();
    let mut paths: Vec<_> = fs::read_dir(&dir).expect("the scenarios").map(|file| file.expect("one").path()).collect();
    paths.sort();
    let mut failed = Vec::new();
    for path in &paths {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("readable");
        let Ok(written) = std::panic::catch_unwind(|| run(&name, &text)) else {
            failed.push(name);
            continue;
        };
        if is_update {
            fs::write(path, &written).expect("writable");
        } else if text != written {
            println!("{name} goes otherwise:\n{written}");
            failed.push(name);
        }
    }
    let hint = "KV_UPDATE_SCENARIOS=1 writes the transcripts anew, if they are right";
    assert!(failed.is_empty(), "{failed:?}; {hint}");
    assert!(paths.len() >= 40, "{} scenarios", paths.len());
}
