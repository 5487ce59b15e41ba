use std::sync::Arc;

use kv_repl::{ReadError, WriteError};
use proptest::prelude::*;

use super::{talk, talk_to};
use crate::command::table::{commands, find};
use crate::single::Single;

/// Sends lines, and compares all replies.
#[track_caller]
fn check(lines: &[&str], replies: &str) {
    assert_eq!(talk(&(lines.join("\r\n") + "\r\n")), replies);
}

#[test]
fn strings() {
    check(&["set a 1", "get a", "get b", "strlen a", "strlen b"], "+OK\r\n$1\r\n1\r\n$-1\r\n:1\r\n:0\r\n");
    check(&["SET a 1 nx", "SET a 2 NX", "SET b 1 XX", "SET a 3 XX"], "+OK\r\n$-1\r\n$-1\r\n+OK\r\n");
    check(&["SET a 1 GET", "SET a 2 GET", "SET a 3 NX GET", "GET a"], "$-1\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n2\r\n");
    check(&["SET a 1 NX XX", "SET a 1 BAD"], "-ERR syntax error\r\n-ERR syntax error\r\n");
    check(&["SET a 1 EX 5"], "-ERR syntax error: this server has no expiry of keys yet\r\n");
    check(&["MSET a 1 b 2", "MGET a x b"], "+OK\r\n*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n");
    check(&["MSET a 1 b"], "-ERR wrong number of arguments for 'mset' command\r\n");
    check(&["APPEND a xy", "APPEND a z", "GET a"], ":2\r\n:3\r\n$3\r\nxyz\r\n");
}

#[test]
fn numbers() {
    check(&["INCR a", "INCRBY a 10", "DECR a", "DECRBY a 20", "GET a"], ":1\r\n:11\r\n:10\r\n:-10\r\n$3\r\n-10\r\n");
    let not_a_number = "-ERR value is not an integer or out of range\r\n";
    check(&["SET a x", "INCR a"], &format!("+OK\r\n{not_a_number}"));
    check(&["INCRBY a 1.5", "INCRBY a 01"], &not_a_number.repeat(2));
    let overflow = "-ERR increment or decrement would overflow\r\n";
    check(&["INCRBY a 9223372036854775807", "INCR a"], &format!(":9223372036854775807\r\n{overflow}"));
    check(&["DECRBY a -9223372036854775808"], "-ERR decrement would overflow\r\n");
}

#[test]
fn keys() {
    check(&["MSET a 1 b 2", "EXISTS a a b c", "DBSIZE", "DEL a a c", "DBSIZE"], "+OK\r\n:3\r\n:2\r\n:1\r\n:1\r\n");
    check(&["SET a 1", "FLUSHALL ASYNC", "DBSIZE", "FLUSHDB x"], "+OK\r\n+OK\r\n:0\r\n-ERR syntax error\r\n");
    check(&["MSET a1 1 a2 2 b 3", "SCAN 0 MATCH a*"], "+OK\r\n*2\r\n$1\r\n0\r\n*2\r\n$2\r\na1\r\n$2\r\na2\r\n");
    check(&["SCAN x", "SCAN 0 COUNT 0"], "-ERR invalid cursor\r\n-ERR syntax error\r\n");
    assert!(talk("SCAN 17\r\n").starts_with("-ERR unknown cursor"));
}

#[test]
fn connection() {
    check(
        &["PING", "ping hi", "ECHO x", "PING a b"],
        "+PONG\r\n$2\r\nhi\r\n$1\r\nx\r\n-ERR wrong number of arguments for 'ping' command\r\n",
    );
    check(&["SELECT 0", "SELECT 1"], "+OK\r\n-ERR DB index is out of range\r\n");
    check(&["CLIENT ID", "CLIENT GETNAME", "CLIENT SETNAME me", "CLIENT GETNAME"], ":42\r\n$-1\r\n+OK\r\n$2\r\nme\r\n");
    check(
        &["CLIENT SETINFO lib-name x", "CLIENT SETINFO LIB-VER 1", "CLIENT SETINFO lib-name \"a b\""],
        "+OK\r\n+OK\r\n-ERR lib-name cannot contain spaces, newlines or special characters.\r\n",
    );
    check(&["CLIENT TRACKING ON"], "-ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.\r\n");
    check(&["CLIENT"], "-ERR wrong number of arguments for 'client' command\r\n");
    check(&["CLIENT SETNAME"], "-ERR wrong number of arguments for 'client|setname' command\r\n");
    check(&["LPUSH k \"a b\""], "-ERR unknown command 'LPUSH', with args beginning with: 'k' 'a b' \r\n");
    check(&["PING", "QUIT", "PING"], "+PONG\r\n+OK\r\n");
    check(&["PING", "*1\r\n+x", "PING"], "+PONG\r\n-ERR Protocol error: expected '$', got '+'\r\n");
}

#[test]
fn hello_changes_the_protocol_from_its_own_reply_on() {
    let pairs = |proto| {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "$6\r\nserver\r\n$7\r\nkv-node\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:{proto}\r\n$2\r\nid\r\n:42\r\n\
             $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n\
             $10\r\nkv_version\r\n${}\r\n{version}\r\n",
            version.len()
        )
    };
    let (two, three) = (pairs(2), pairs(3));
    check(
        &["HELLO", "GET x", "HELLO 3 SETNAME me", "GET x", "CLIENT GETNAME", "RESET", "GET x"],
        &format!("*16\r\n{two}$-1\r\n%8\r\n{three}_\r\n$2\r\nme\r\n+RESET\r\n$-1\r\n"),
    );
    check(&["HELLO 4", "GET x"], "-NOPROTO unsupported protocol version\r\n$-1\r\n");
    check(&["HELLO x"], "-ERR Protocol version is not an integer or out of range\r\n");
    check(&["HELLO 3 NONSENSE", "GET x"], "-ERR Syntax error in HELLO option 'NONSENSE'\r\n$-1\r\n");
    let refused = talk("HELLO 3 AUTH default secret\r\nGET x\r\n");
    assert!(refused.contains("without any password configured for the default user"), "{refused}");
    assert!(refused.ends_with("$-1\r\n"), "a refused HELLO changes nothing: {refused}");
}

#[test]
fn configuration() {
    check(
        &["CONFIG GET save", "CONFIG GET databases"],
        "*2\r\n$4\r\nsave\r\n$0\r\n\r\n*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n",
    );
    check(&["CONFIG GET APPENDONLY port"], "*4\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$4\r\nport\r\n$4\r\n7001\r\n");
    check(
        &["CONFIG GET maxmemory*"],
        "*4\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n",
    );
    check(&["CONFIG SET a b"], "-ERR unknown subcommand 'SET'. Try CONFIG HELP.\r\n");
}

#[test]
fn the_table_describes_itself() {
    check(&["COMMAND COUNT"], &format!(":{}\r\n", commands().count()));
    check(
        &["COMMAND INFO get nothing"],
        "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n+@fast\r\n+@read\r\n+@string\r\n\
         *0\r\n*0\r\n*0\r\n$-1\r\n",
    );
    check(
        &["COMMAND GETKEYS mset a 1 b 2", "COMMAND GETKEYS ping", "COMMAND GETKEYS nothing"],
        "*2\r\n$1\r\na\r\n$1\r\nb\r\n-ERR The command has no key arguments\r\n-ERR Invalid command specified\r\n",
    );
    check(
        &["COMMAND LIST FILTERBY PATTERN *cr*"],
        "*4\r\n$4\r\nincr\r\n$4\r\ndecr\r\n$6\r\nincrby\r\n$6\r\ndecrby\r\n",
    );
    check(
        &["COMMAND DOCS echo"],
        "*2\r\n$4\r\necho\r\n*10\r\n$7\r\nsummary\r\n$20\r\nAnswers the message.\r\n$5\r\nsince\r\n$5\r\n1.0.0\r\n$5\r\ngroup\r\n\
         $10\r\nconnection\r\n$10\r\ncomplexity\r\n$4\r\nO(1)\r\n$9\r\narguments\r\n*1\r\n*4\r\n$4\r\nname\r\n$7\r\nmessage\r\n\
         $4\r\ntype\r\n$6\r\nstring\r\n",
    );
    for command in commands() {
        assert!(!command.summary.is_empty(), "{} has no summary", command.name);
        assert!(find(command.name.as_bytes()).is_some_and(|found| found.name == command.name), "{}", command.name);
        for sub in command.subcommands {
            assert!(sub.name.starts_with(&format!("{}|", command.name)), "{} in {}", sub.name, command.name);
        }
    }
}

#[test]
fn info_has_what_tools_look_for() {
    let all = talk("SET a 1\r\nINFO\r\n");
    for field in [
        "redis_version:7.2.4",
        "server_name:kv-node",
        "loading:0",
        "rdb_bgsave_in_progress:0",
        "role:master",
        "total_commands_processed:2",
        "# Raft",
        "current_term:2",
        "db0:keys=1,expires=0,avg_ttl=0",
    ] {
        assert!(all.contains(&format!("{field}\r\n")), "{field} in {all}");
    }
    let some = talk("INFO keyspace CLIENTS\r\n");
    assert!(some.contains("# Clients\r\n") && some.contains("# Keyspace\r\n") && !some.contains("# Server"), "{some}");
}

#[test]
fn own_commands() {
    let status = talk("KV.STATUS\r\n");
    let json = status.split_once("\r\n").unwrap().1.trim_end();
    let status: crate::NodeStatus = serde_json::from_str(json).unwrap();
    assert_eq!((status.id, status.role.as_str(), status.member.as_deref()), (1, "leader", Some("voter")));

    let talk =
        talk("SET a 1\r\nKV.MARK\r\nSET b 1\r\nKV.HASH 2 AUDIT\r\nKV.PAIRS 2 \"\"\r\nKV.SPLIT 2 \"\"\r\nKV.HASH 9\r\n");
    let (digest, audit) = (field(&talk, "digest"), field(&talk, "audit"));
    assert_eq!(digest, audit);
    assert!(talk.contains("*1\r\n*4\r\n$1\r\na\r\n:1\r\n:0\r\n$64\r\n"), "{talk}");
    assert!(talk.ends_with("$-1\r\n$-1\r\n"), "{talk}");
    check(&["KV.HASH x"], "-ERR value is not an integer or out of range\r\n");
    check(
        &["SET a 1", "KV.HASH 1"],
        "+OK\r\n-NOMARK no mark is kept at index 1: there was none, or many more have followed\r\n",
    );
}

/// The text after a name in an array of names and values.
fn field<'a>(talk: &'a str, name: &str) -> &'a str {
    talk.split_once(&format!("{name}\r\n$64\r\n")).unwrap_or_else(|| panic!("{name} in {talk}")).1.get(..64).unwrap()
}

#[test]
fn neighbours_share_a_submit_or_a_barrier() {
    let backend = Arc::new(Single::new());
    let sent = b"SET a 1\r\nSET b 2\r\nPING\r\nINCR a\r\nGET a\r\nPING\r\nDBSIZE\r\nSET a 5\r\nGET a\r\n";
    let replies = talk_to(Arc::clone(&backend), sent);
    assert_eq!(replies, "+OK\r\n+OK\r\n+PONG\r\n:2\r\n$1\r\n2\r\n+PONG\r\n:2\r\n+OK\r\n$1\r\n5\r\n");
    assert_eq!(backend.calls(), [3, 0, 1, 0]);
}

#[test]
fn a_refusal_says_whether_the_write_may_have_happened() {
    let refused = |write, read| talk_to(Arc::new(Single::refusing(write, read)), b"SET a 1\r\nGET a\r\n");
    assert!(refused(WriteError::NoLeader, ReadError::NoLeader).starts_with("-LOADING "));
    let unknown = refused(WriteError::Unknown, ReadError::Stopped);
    assert!(unknown.starts_with("-UNKNOWN ") && unknown.contains("\r\n-CLUSTERDOWN "), "{unknown}");
    assert!(refused(WriteError::Stopped, ReadError::Stopped).starts_with("-UNKNOWN "));
    assert!(refused(WriteError::TooLarge, ReadError::Stopped).starts_with("-ERR "));
    assert!(refused(WriteError::DiskFull, ReadError::Stopped).starts_with("-MISCONF "));
}

#[test]
fn a_long_reply_comes_in_pieces_and_whole() {
    let value = "v".repeat(1 << 20);
    let talk = talk(&format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\nMGET k k k\r\nPING\r\n", value.len()));
    let one = format!("${}\r\n{value}\r\n", value.len());
    assert!(talk == format!("+OK\r\n*3\r\n{}+PONG\r\n", one.repeat(3)));
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<Vec<u8>> = commands()
        .flat_map(|command| std::iter::once(command).chain(command.subcommands))
        .flat_map(|command| command.name.split('|'))
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let others = ["0", "1", "-1", "2", "a", "", "*", "MATCH", "COUNT", "NX", "GET", "AUDIT", "FILTERBY", "PATTERN"];
    prop_oneof![
        3 => proptest::sample::select(names),
        3 => proptest::sample::select(others.map(|word| word.as_bytes().to_vec()).to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    /// Whatever a client asks, every request has exactly one reply and none ends the connection but QUIT.
    #[test]
    fn no_request_is_too_strange(
        requests in proptest::collection::vec(proptest::collection::vec(word(), 1..6), 1..8)
    ) {
        let mut sent = Vec::new();
        for request in requests.iter().filter(|request| !request[0].eq_ignore_ascii_case(b"quit")) {
            sent.extend(format!("*{}\r\n", request.len()).into_bytes());
            for word in request {
                sent.extend(format!("${}\r\n", word.len()).into_bytes());
                sent.extend(word);
                sent.extend(b"\r\n");
            }
        }
        sent.extend(b"ECHO the-end\r\n");
        let replies = talk_to(Arc::new(Single::new()), &sent);
        prop_assert!(replies.ends_with("$7\r\nthe-end\r\n"), "{replies}");
    }
}
