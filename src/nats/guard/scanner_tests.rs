//! The scanner by itself, and against the client library: whatever it passes, the library must read without error.

use proptest::prelude::*;

use super::scanner::{
    MAX_HEADER_BYTES, MAX_INFO_BYTES, MAX_LINE_BYTES, MAX_MESSAGE_BYTES, Message, Operation, Piece, Scanner, Verdict,
    Violation,
};

/// All pieces of `input`, given `step` bytes more at a time, and why it ended.
fn pieces(input: &[u8], step: usize) -> (Vec<Piece>, Option<Violation>) {
    let (mut scanner, mut pieces, mut from, mut to) = (Scanner::default(), Vec::new(), 0, 0);
    while to < input.len() {
        to = input.len().min(to + step);
        loop {
            match scanner.next(&input[from..to]) {
                Ok(Piece::Incomplete) => break,
                Ok(piece) => {
                    from += match &piece {
                        Piece::Plain { length, .. } | Piece::Body { length, .. } => *length,
                        Piece::Message(message) => message.line,
                        Piece::Incomplete => 0,
                    };
                    // Parts of one body count as one.
                    match (pieces.last_mut(), piece) {
                        (Some(Piece::Body { length, last: false }), Piece::Body { length: more, last }) => {
                            let whole = *length + more;
                            *pieces.last_mut().unwrap() = Piece::Body { length: whole, last };
                        }
                        (_, piece) => pieces.push(piece),
                    }
                }
                Err(violation) => return (pieces, Some(violation)),
            }
        }
        assert!(to - from <= MAX_LINE_BYTES + MAX_HEADER_BYTES + step, "it waits for too much");
    }
    (pieces, None)
}

fn message(input: &[u8]) -> Message {
    match Scanner::default().next(input) {
        Ok(Piece::Message(message)) => message,
        other => panic!("{other:?} of {}", input.escape_ascii()),
    }
}

fn with_header(header: &[u8]) -> Verdict {
    let mut input = format!("HMSG a 1 {0} {0}\r\n", header.len()).into_bytes();
    input.extend_from_slice(header);
    input.extend_from_slice(b"\r\n");
    message(&input).verdict
}

#[test]
fn what_servers_say_is_passed() {
    let text = b"INFO {}\r\n+OK\r\nPING\r\nPONG\r\n-ERR 'x'\r\nMSG a.b 9 5\r\nhello\r\nHMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n";
    let (found, violation) = pieces(text, 1000);
    assert_eq!(violation, None);
    let operations = found.iter().filter_map(|piece| match piece {
        Piece::Plain { operation, .. } => Some(*operation),
        _ => None,
    });
    let operations: Vec<_> = operations.collect();
    let expected = [Operation::Info, Operation::Ok, Operation::Ping, Operation::Pong, Operation::Error];
    assert_eq!(operations, expected);
    for step in 1..text.len() {
        assert_eq!(pieces(text, step), (found.clone(), None), "{step} bytes at a time");
    }
    let first = message(b"MSG a.b 9 5\r\n");
    assert_eq!((first.subscription, first.total, first.header, first.reply), (9, 5, 0, None));
    assert_eq!(message(b"MSG a 1 r.x 0\r\n").reply, Some(8..11));
}

#[test]
fn what_no_server_says_ends_the_connection() {
    for text in [
        &b"-ERR\r\n"[..],
        b"-ERR \xff\r\n",
        b"MSG a 1 18446744073709551615\r\n",
        b"HMSG a 1 18446744073709551615 18446744073709551615\r\n",
        b"HMSG a 1 12 4294967296\r\n",
        b"MSG a 1 4294967296\r\n",
        b"MSG a 1 99999999999999999999999\r\n",
        b"MSG a 18446744073709551616 1\r\n",
        b"MSG a 1 +5\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a x 5\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 2 3 4\r\n",
        b"MSG \r\n",
        b"HMSG a 1 5 4\r\n",
        b"HMSG a 1 r x 4 5\r\n",
        b"MSG a 1 1\r\nxyz",
        b"MSG a 1 1\r\nx\r\r",
        b"PINGX\r\n",
        b"GARBAGE",
        b"\0",
        b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x16\x03\x01\x02",
    ] {
        assert!(pieces(text, 1).1.is_some(), "{}", text.escape_ascii());
        assert!(pieces(text, 1000).1.is_some(), "{}", text.escape_ascii());
    }
    for (begin, most) in [("MSG ", MAX_LINE_BYTES), ("INFO ", MAX_INFO_BYTES), ("-ERR ", MAX_LINE_BYTES)] {
        let endless = format!("{begin}{}", "x".repeat(most));
        assert_eq!(Scanner::default().next(&endless.as_bytes()[..most - 1]), Ok(Piece::Incomplete));
        assert!(Scanner::default().next(&endless.as_bytes()[..most]).is_err());
    }
}

#[test]
fn what_a_publisher_can_do_costs_the_message_or_its_header() {
    for header in [
        &b"NATS/1.0\r\nX-A: a\rb\r\n\r\n"[..],
        b"NATS/1.0\r\nX-A: a\r\n b\rc\r\n\r\n",
        b"NATS/1.0\r\nX\xff: a\r\n\r\n",
        "NATS/1.0\r\nX\u{e9}: a\r\n\r\n".as_bytes(),
        b"NATS/1.0\r\nX A: a\r\n\r\n",
        b"NATS/1.0\r\n X: a\r\n\r\n",
        b"NATS/1.0\r\nnothing\r\n\r\n",
        b"NATS/1.0 abc\r\n\r\n",
        b"NATS/1.0 1000\r\n\r\n",
        b"NATS/1.0 099\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"",
    ] {
        assert!(matches!(with_header(header), Verdict::WithoutHeader(_)), "{}", header.escape_ascii());
    }
    for header in [
        &b"NATS/1.0\r\n\r\n"[..],
        b"NATS/1.0",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n",
        b"NATS/1.0\r\nX:\r\nY: a: b\r\n more\r\n\r\n",
        b"NATS/1.0\nX: a\n\n",
        "NATS/1.0\r\nX: \u{e9}\r\n\r\n".as_bytes(),
    ] {
        assert_eq!(with_header(header), Verdict::Pass, "{}", header.escape_ascii());
    }
    let long = message(format!("HMSG a 1 {0} {0}\r\n", MAX_HEADER_BYTES + 1).as_bytes());
    assert!(matches!(long.verdict, Verdict::WithoutHeader(_)), "without waiting for it");
    for line in [
        format!("MSG a 1 {}\r\n", MAX_MESSAGE_BYTES + 1).into_bytes(),
        b"MSG a\xff 1 5\r\n".to_vec(),
        b"MSG a 1 r\xff 5\r\n".to_vec(),
        "HMSG a\u{3000}b 1 12 12\r\n".into(),
        b"HMSG a\x0bb 1 12 12\r\n".to_vec(),
    ] {
        assert!(matches!(message(&line).verdict, Verdict::Drop(_)), "{}", line.escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn pieces_do_not_depend_on_how_the_bytes_arrive(seed in any::<u64>(), step in 1_usize..40) {
        let input = super::generated::stream(seed, 4);
        let (whole, violation) = pieces(&input, input.len().max(1));
        let (parts, other) = pieces(&input, step);
        // An unknown operation may be refused before the bytes of it that were passed as a body in one piece.
        prop_assert_eq!(violation.is_some(), other.is_some());
        if violation.is_none() {
            prop_assert_eq!(whole, parts);
        }
    }

    #[test]
    fn no_bytes_panic(input in proptest::collection::vec(any::<u8>(), 0..200), step in 1_usize..9) {
        let _ = pieces(&input, step);
    }
}
