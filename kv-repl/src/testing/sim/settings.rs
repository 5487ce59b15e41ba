use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Fault;

/// How large and how long. As text it is what a command that repeats a run is given: `nodes=3 clients=2 ms=900 without=Loss`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nodes of the cluster, all of them voters at first.
    pub nodes: usize,
    /// Clients, each with one operation at a time.
    pub clients: usize,
    /// Whether nodes get bursts of commands: see [`Workload::noise`](super::Workload::noise).
    pub noise: bool,
    /// For how long of simulated time faults come.
    pub faults_for: Duration,
    /// How long of simulated time the cluster may take to come together when they have stopped.
    pub calm_within: Duration,
    /// Kinds of faults that do not happen.
    pub without: Vec<Fault>,
}

impl Settings {
    /// The usual ones, with some more nodes for every fourth seed.
    pub fn for_seed(seed: u64) -> Settings {
        Settings { nodes: if seed.is_multiple_of(4) { 5 } else { 3 }, ..Settings::default() }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            nodes: 3,
            clients: 20,
            noise: true,
            faults_for: Duration::from_secs(20),
            calm_within: Duration::from_secs(60),
            without: Vec::new(),
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { nodes, clients, noise, faults_for, .. } = self;
        write!(f, "nodes={nodes} clients={clients} noise={noise} ms={}", faults_for.as_millis())?;
        let without: Vec<String> = self.without.iter().map(|fault| format!("{fault:?}")).collect();
        if without.is_empty() { Ok(()) } else { write!(f, " without={}", without.join(",")) }
    }
}

impl FromStr for Settings {
    type Err = String;

    /// What is not said is as usual.
    fn from_str(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for word in text.split_whitespace() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word}: not of the form name=value"))?;
            let number = || value.parse::<usize>().map_err(|error| format!("{word}: {error}"));
            match name {
                "nodes" => settings.nodes = number()?,
                "clients" => settings.clients = number()?,
                "noise" => settings.noise = value == "true",
                "ms" => settings.faults_for = Duration::from_millis(number()? as u64),
                "without" => settings.without = value.split(',').map(fault).collect::<Result<_, _>>()?,
                _ => return Err(format!("{word}: there is no such setting")),
            }
        }
        Ok(settings)
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    let found = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    found.ok_or_else(|| format!("{name}: there is no such fault"))
}
