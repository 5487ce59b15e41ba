//! The log: records appended and synced, by batch size. Every figure includes one fdatasync a batch.

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kv_wal::{Entry, EntryId, Index, Kind, Log, Options, Term};

const RECORD_BYTES: usize = 128;

fn append_and_sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal_append_fdatasync");
    for batch in [1_u64, 16, 256, 4096] {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temporary directory");
        let (mut log, _) = Log::open(dir.path(), Options::default()).expect("log opens");
        let mut next = 1;
        group.throughput(Throughput::ElementsAndBytes { elements: batch, bytes: batch * RECORD_BYTES as u64 });
        group.bench_function(BenchmarkId::new("records_of_128_bytes", batch), |bencher| {
            bencher.iter(|| {
                let entries = encode(next, batch);
                next += batch;
                log.append(&entries, None).expect("appended");
                log.sync().expect("synced");
                // What nobody needs any more is dropped, as after a checkpoint.
                if next % 100_000 < batch {
                    log.truncate_prefix(EntryId::new(Term::new(1), Index::new(next - 1))).expect("truncated");
                }
            });
        });
    }
    group.finish();
}

fn encode(first: u64, count: u64) -> Vec<Entry> {
    let mut buffer = BytesMut::with_capacity(count as usize * (RECORD_BYTES + kv_wal::record::HEADER_BYTES));
    let id = |index| EntryId::new(Term::new(1), Index::new(index));
    let payload = [7; RECORD_BYTES];
    (first..first + count).map(|index| Entry::encode(&mut buffer, id(index), 0, Kind(1), &payload)).collect()
}

criterion_group!(benches, append_and_sync);
criterion_main!(benches);
