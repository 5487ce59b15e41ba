//! The default composition: kv-wal as the log, kv-store as the state machine, TCP between nodes.

#[cfg(feature = "file-log")]
mod file_log {
    use std::ops::Range;

    use bytes::Bytes;

    use crate::driver::traits::{Log, LogDamage, LogError, LogReader};
    use crate::types::{Entry, EntryId, Index};

    fn log_error(error: kv_wal::Error) -> LogError {
        match error {
            kv_wal::Error::DiskFull { .. } => LogError::disk_full(error),
            _ => LogError::new(error),
        }
    }

    impl Log for kv_wal::Log {
        type Reader = kv_wal::Reader;

        fn append(&mut self, entries: &[Entry], state: Option<&[u8]>) -> Result<(), LogError> {
            kv_wal::Log::append(self, entries, state).map_err(log_error)
        }

        fn reset(&mut self, base: EntryId) -> Result<(), LogError> {
            kv_wal::Log::reset(self, base).map_err(log_error)
        }

        fn truncate_prefix(&mut self, upto: EntryId) -> Result<(), LogError> {
            kv_wal::Log::truncate_prefix(self, upto).map_err(log_error)
        }

        fn sync(&mut self) -> Result<(), LogError> {
            kv_wal::Log::sync(self).map(|_| ()).map_err(LogError::new)
        }

        fn state(&self) -> Option<Bytes> {
            kv_wal::Log::state(self)
        }

        fn damage(&self) -> LogDamage {
            let ranges = kv_wal::Log::damage(self).iter().map(|range| (range.first, range.last)).collect();
            LogDamage { ranges, is_state_in_doubt: kv_wal::Log::is_state_in_doubt(self) }
        }

        fn repair(&mut self, entries: &[Entry]) -> Result<(), LogError> {
            kv_wal::Log::repair(self, entries).map(|_| ()).map_err(log_error)
        }

        fn reader(&self) -> kv_wal::Reader {
            kv_wal::Log::reader(self)
        }
    }

    impl LogReader for kv_wal::Reader {
        fn read(&self, range: Range<Index>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
            kv_wal::Reader::read(self, range, bytes_max).map_err(LogError::new)
        }

        fn base(&self) -> EntryId {
            kv_wal::Reader::base(self)
        }

        fn last(&self) -> EntryId {
            kv_wal::Reader::last(self)
        }

        fn term_runs(&self) -> Vec<EntryId> {
            kv_wal::Reader::term_runs(self)
        }
    }
}

#[cfg(feature = "store")]
mod store {
    use std::io;

    use bytes::Bytes;
    use kv_store::{Outcome, ReadView, Store};

    use crate::driver::traits::{BoxError, CheckpointMeta, StateMachine};
    use crate::types::Index;

    impl StateMachine for Store {
        type Outcome = Outcome;
        type View = ReadView;

        fn create(secret: [u8; 32]) -> Store {
            Store::new(secret)
        }

        fn apply(&mut self, index: Index, stamp_ms: u64, command: &Bytes) -> Outcome {
            Store::apply(self, index, stamp_ms, command)
        }

        fn advance_clock(&mut self, stamp_ms: u64) {
            Store::advance_clock(self, stamp_ms);
        }

        fn next_deadline_ms(&self) -> Option<u64> {
            Store::next_deadline_ms(self)
        }

        fn view(&self) -> ReadView {
            Store::view(self)
        }

        fn digest(&self) -> [u8; 32] {
            ReadView::digest(self)
        }

        fn save(view: &ReadView, meta: &CheckpointMeta, out: &mut dyn io::Write) -> io::Result<()> {
            let meta = kv_store::CheckpointMeta { last: meta.last, blob: meta.blob.clone() };
            kv_store::checkpoint::write(view, &meta, out)
        }

        fn load(input: &mut dyn io::Read) -> Result<(Store, CheckpointMeta), BoxError> {
            let (store, meta) = kv_store::checkpoint::read(input)?;
            Ok((store, CheckpointMeta { last: meta.last, blob: meta.blob }))
        }
    }
}

#[cfg(all(feature = "file-log", feature = "store"))]
mod composed {
    use std::fs::{self, File};
    use std::io;
    use std::path::Path;

    use kv_store::Store;
    use tracing::warn;

    use crate::driver::boot::{Boot, read_disk};
    use crate::driver::config::{ReplicaConfig, StartError};
    use crate::driver::replica::Replica;
    use crate::driver::traits::{BoxError, LogError};
    use crate::transport::Transport;

    impl Replica<Store> {
        /// Starts a node of the default composition: its log in `config.dir/log`, its checkpoints in
        /// `config.dir/checkpoints`, its peers over TCP on `listener`. See [`Replica::open_over`].
        ///
        /// # Errors
        ///
        /// As for [`Replica::open_over`].
        #[cfg(feature = "tcp")]
        pub async fn open(config: ReplicaConfig, listener: tokio::net::TcpListener) -> Result<Self, StartError> {
            Replica::open_over(config, crate::transport::tcp::Tcp::new(listener)).await
        }

        /// Starts a node whose log is in `config.dir/log` and whose checkpoints are in `config.dir/checkpoints`, over any
        /// transport.
        ///
        /// A log that has lost what nobody can give back, or the latest vote, is set aside beside the new one, as
        /// `log.given-up-1` and so on: the node begins again as a new member, which the leader lets in in place of the old
        /// one. Whatever else a log has lost comes back from the other nodes.
        ///
        /// # Errors
        ///
        /// As for [`Replica::start`]; the log may also be locked by another process, or of a newer version.
        pub async fn open_over<T: Transport>(mut config: ReplicaConfig, transport: T) -> Result<Self, StartError> {
            config.validate()?;
            let home = config.dir.clone();
            config.dir = home.join("checkpoints");
            let log = open_log(&home, &config).await?;
            let booted = match read_disk::<Store, _>(&config, log, None).await? {
                Boot::Ready(booted) => booted,
                Boot::BeyondRepair { reason, founding: None } => return Err(StartError::Damaged(reason)),
                Boot::BeyondRepair { reason, founding } => {
                    let path = set_aside(&home).map_err(|error| StartError::Log(LogError::new(error)))?;
                    warn!(%reason, log = %path.display(), "the log is set aside; this node begins again as a new member");
                    let log = open_log(&home, &config).await?;
                    match read_disk(&config, log, founding).await? {
                        Boot::Ready(booted) => booted,
                        Boot::BeyondRepair { reason, .. } => return Err(StartError::Damaged(reason)),
                    }
                }
            };
            Ok(Replica::run(config, *booted, transport))
        }
    }

    async fn open_log(home: &Path, config: &ReplicaConfig) -> Result<kv_wal::Log, StartError> {
        let dir = home.join("log");
        let options = kv_wal::Options { segment_bytes: config.log_segment_bytes, ..kv_wal::Options::default() };
        let opened = tokio::task::spawn_blocking(move || kv_wal::Log::open(&dir, options));
        let (log, recovery) = opened
            .await
            .map_err(|panic| StartError::Other(BoxError::from(panic)))?
            .map_err(|error| StartError::Log(LogError::new(error)))?;
        if recovery.is_damaged() {
            warn!(%recovery, "the log is damaged");
        }
        Ok(log)
    }

    /// Moves the log out of the way, and gives its new place.
    fn set_aside(home: &Path) -> io::Result<std::path::PathBuf> {
        let free = (1..).map(|number| home.join(format!("log.given-up-{number}"))).find(|path| !path.exists());
        let path = free.expect("numbers do not end");
        fs::rename(home.join("log"), &path)?;
        File::open(home)?.sync_all()?;
        Ok(path)
    }
}
