//! What transcripts say of messages.

use crate::message::{AppendResult, FetchResult, Message, SnapshotResult};
use crate::types::Entry;

fn list(entries: &[Entry]) -> String {
    let ids: Vec<String> = entries.iter().map(|entry| entry.id().to_string()).collect();
    format!("[{}]", ids.join(" "))
}

/// A message in a few words.
pub(super) fn say(message: &Message) -> String {
    let (name, term) = (message.name(), message.term());
    let rest = match message {
        Message::PreVote(request) | Message::RequestVote(request) => format!("last {}", request.last),
        Message::PreVoteReply(reply) | Message::RequestVoteReply(reply) => {
            if reply.granted { "yes" } else { "no" }.to_owned()
        }
        Message::AppendEntries(append) => {
            format!("after {} {} committed {}", append.prev, list(&append.entries), append.committed)
        }
        Message::AppendEntriesReply(reply) => match reply.result {
            AppendResult::Durable(index) => format!("durable {index}"),
            AppendResult::Alive => "alive".to_owned(),
            AppendResult::Mismatch { refused, hint } => format!("refuses {refused}, try {hint}"),
            AppendResult::StaleTerm => "stale".to_owned(),
        },
        Message::InstallSnapshot(piece) => {
            format!("last {} offset {} of {}", piece.last, piece.offset, piece.file_bytes)
        }
        Message::InstallSnapshotReply(reply) => match reply.result {
            SnapshotResult::Continue { offset } => format!("go on at {offset}"),
            SnapshotResult::Installed => format!("installed {}", reply.last),
            SnapshotResult::Failed => "failed".to_owned(),
            SnapshotResult::StaleTerm => "stale".to_owned(),
        },
        Message::FetchEntries(request) => format!("from {} before {}", request.first, request.next),
        Message::FetchEntriesReply(reply) => match &reply.result {
            FetchResult::Entries(entries) => list(entries),
            FetchResult::Absent => "absent".to_owned(),
            FetchResult::Damaged => "damaged".to_owned(),
            FetchResult::Needless => "needless".to_owned(),
        },
        Message::ReadIndexReply(reply) => reply.index.map_or("no".to_owned(), |index| format!("read at {index}")),
        Message::Marked(marked) => format!("mark {} {:02x}", marked.index, marked.hash[0]),
        Message::ReadIndex(_) | Message::TimeoutNow(_) | Message::Forward(_) => String::new(),
    };
    format!("{name} in {term} {rest}").trim_end().to_owned()
}
