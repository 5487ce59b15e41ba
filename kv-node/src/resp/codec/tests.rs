use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Requests = Vec<Vec<Bytes>>;

/// Feeds the stream in pieces that end at `cuts`; gives the requests and how the stream ended.
fn decode(stream: &[u8], cuts: &[usize]) -> (Requests, Option<ProtocolError>) {
    let mut decoder = RequestDecoder::default();
    let mut source = BytesMut::new();
    let mut requests = Vec::new();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    ends.push(stream.len());
    ends.sort_unstable();
    let mut start = 0;
    for end in ends {
        source.extend_from_slice(&stream[start..end]);
        start = end;
        loop {
            match decoder.decode(&mut source) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(RequestError::Protocol(error)) => return (requests, Some(error)),
                Err(RequestError::Connection(error)) => panic!("no connection here: {error}"),
            }
        }
    }
    (requests, None)
}

fn encode(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for request in requests {
        stream.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
        for argument in request {
            stream.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            stream.extend_from_slice(argument);
            stream.extend_from_slice(b"\r\n");
        }
    }
    stream
}

#[track_caller]
fn refused(stream: &[u8], text: &str) {
    let (requests, error) = decode(stream, &[]);
    assert_eq!(requests, Requests::new());
    assert_eq!(error.map(|error| RequestError::from(error).to_string()), Some(format!("Protocol error: {text}")));
}

#[test]
fn errors_have_the_texts_of_redis() {
    refused(b"*1\r\n+PING\r\n", "expected '$', got '+'");
    refused(b"*x\r\n", "invalid multibulk length");
    refused(b"*1048577\r\n", "invalid multibulk length");
    refused(b"*1\n", "invalid multibulk length");
    refused(b"*1\r\n$-1\r\n", "invalid bulk length");
    refused(b"*1\r\n$x\r\n", "invalid bulk length");
    refused(format!("*1\r\n${}\r\n", BULK_BYTES_MAX + 1).as_bytes(), "invalid bulk length");
    refused(b"*1\r\n$1\r\nab\r\n", "invalid bulk length");
    refused(b"set \"a\r\n", "unbalanced quotes in request");
    refused(&vec![b'a'; LINE_BYTES_MAX], "too big inline request");
    refused(&[&b"*"[..], &vec![b'1'; LINE_BYTES_MAX]].concat(), "too big mbulk count string");
    refused(&[&b"*1\r\n$"[..], &vec![b'1'; LINE_BYTES_MAX]].concat(), "too big bulk count string");
}

#[test]
fn the_arguments_together_are_bounded() {
    let argument = vec![b'a'; 16 << 20];
    let request = vec![b"MSET".to_vec(), argument.clone(), argument.clone(), argument];
    refused(&encode(&[request]), "too big request");
}

#[test]
fn empty_requests_are_passed_over() {
    let (requests, error) = decode(b"\r\n*0\r\n*-1\r\n\nPING\r\n", &[]);
    assert_eq!((requests, error), (vec![vec![Bytes::from("PING")]], None));
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let mut decoder = RequestDecoder::default();
    let mut source = BytesMut::from(&b"*1000000\r\n$16000000\r\n"[..]);
    assert!(decoder.decode(&mut source).unwrap().is_none());
    assert!(source.capacity() <= 2 * RESERVE_BYTES_MAX);
    assert!(decoder.partial.unwrap().arguments.capacity() <= 16);
}

#[test]
fn an_argument_shares_the_memory_of_the_buffer() {
    let mut source = BytesMut::from(&encode(&[vec![b"GET".to_vec(), vec![b'k'; 100]]])[..]);
    let range = source.as_ptr_range();
    let request = RequestDecoder::default().decode(&mut source).unwrap().unwrap();
    assert!(range.contains(&request[1].as_ptr()));
}

proptest! {
    #[test]
    fn any_cut_of_any_pipeline_decodes_the_same(
        requests in vec(vec(vec(any::<u8>(), 0..40), 1..6), 0..8),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        let (decoded, error) = decode(&encode(&requests), &cuts);
        prop_assert_eq!(error, None);
        prop_assert_eq!(decoded, requests);
    }

    #[test]
    fn arbitrary_bytes_decode_the_same_however_cut(
        stream in vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"*$\r\n0123456789- \"'"[..])], 0..200),
        cuts in vec(any::<usize>(), 0..20),
    ) {
        prop_assert_eq!(decode(&stream, &cuts), decode(&stream, &[]));
    }
}
