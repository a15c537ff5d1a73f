//! The guard between the real client library and servers of the test's own that say what no server should.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    Guard, Reader, Settings, Target, Tls, generated,
    scanner::{Piece, Scanner},
};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn guard(port: u16) -> Arc<Guard> {
    let target = Target { host: "127.0.0.1".into(), port, tls: false };
    let settings = Settings {
        purpose: "test",
        servers: vec![target],
        discover: true,
        tls: Tls::default(),
        connect: PATIENCE,
        silence: PATIENCE,
    };
    Arc::new(Guard::open(settings).await.unwrap())
}

/// The library behind a guard, and how often it lost the connection.
async fn client(guard: &Arc<Guard>) -> (Client, Arc<AtomicUsize>) {
    let lost = Arc::new(AtomicUsize::new(0));
    let counting = lost.clone();
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .connection_timeout(PATIENCE)
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected) {
                counting.fetch_add(1, SeqCst);
            }
            std::future::ready(())
        });
    (options.connect(guard.url()).await.unwrap(), lost)
}

/// A server that takes a login; what follows is the test's. A connection that waited so long for this that the other
/// side has closed it is passed over: another comes.
async fn greet(listener: &TcpListener) -> TcpStream {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if take_login(&mut stream).await.is_ok() {
            return stream;
        }
    }
}

async fn take_login(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"INFO {\"max_payload\":1048576,\"headers\":true}\r\n").await?;
    hear(stream, b"PING\r\n").await?;
    stream.write_all(b"PONG\r\n").await
}

/// Reads until `end` came; an error where it is closed before.
async fn hear(stream: &mut TcpStream, end: &[u8]) -> std::io::Result<()> {
    let mut said = Vec::new();
    while !said.windows(end.len()).any(|window| window == end) {
        if timeout(PATIENCE, stream.read_buf(&mut said)).await.expect("it speaks")? == 0 {
            return Err(std::io::Error::other(format!("closed after {}", said.escape_ascii())));
        }
    }
    Ok(())
}

/// Reads until `end` came.
async fn until(stream: &mut TcpStream, end: &[u8]) {
    hear(stream, end).await.unwrap();
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// Whether the scanner takes all of `input`, to its end.
fn is_whole(input: &[u8]) -> bool {
    let (mut scanner, mut from) = (Scanner::default(), 0);
    while from < input.len() {
        from += match scanner.next(&input[from..]) {
            Ok(Piece::Plain { length, .. } | Piece::Body { length, .. }) => length,
            Ok(Piece::Message(message)) => message.line,
            Ok(Piece::Incomplete) | Err(_) => return false,
        };
    }
    scanner.left() == 0
}

#[test]
fn whatever_is_passed_the_library_reads() {
    // More by hand: LATTICED_FUZZ_ROUNDS=2000.
    let rounds = std::env::var("LATTICED_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20_u64);
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = guard(listener.local_addr().unwrap().port()).await;
        let (client, lost) = client(&guard).await;
        let mut server = greet(&listener).await;
        let mut heard = Reader::new(client.subscribe("a.*").await.unwrap(), guard.flow());
        until(&mut server, b"SUB a.* 1\r\n").await;
        let (mut passed, mut refused) = (0, 0);
        for round in 0..rounds {
            let mut batch = Vec::new();
            for seed in round * 500..(round + 1) * 500 {
                let said = generated::stream(seed, 1);
                // An `INFO` that cannot be read is the guard's to refuse.
                let unreadable = said.starts_with(b"INFO") && !said.ends_with(b"}\r\n");
                if is_whole(&said) && !unreadable {
                    batch.extend(said);
                    passed += 1;
                } else {
                    refused += 1;
                }
            }
            batch.extend_from_slice(format!("MSG a.end 1 {}\r\n{round}\r\n", round.to_string().len()).as_bytes());
            let (mut reading, mut writing) = server.split();
            let writes = async {
                writing.write_all(&batch).await.unwrap();
                futures_util::future::pending::<()>().await
            };
            let reads = async {
                // Pongs, and what the library takes back.
                let mut lost = [0; 4096];
                while reading.read(&mut lost).await.is_ok_and(|read| read > 0) {}
            };
            let hears = async {
                loop {
                    let message = heard.next().await.expect("the library lives");
                    if message.subject.as_str() == "a.end" && message.payload == round.to_string().as_bytes() {
                        break;
                    }
                }
            };
            tokio::pin!(writes, reads, hears);
            let heard = futures_util::future::select(hears, futures_util::future::select(writes, reads));
            assert!(
                matches!(timeout(PATIENCE, heard).await, Ok(futures_util::future::Either::Left(_))),
                "the library fell over something of the seeds {}..{}",
                round * 500,
                (round + 1) * 500
            );
        }
        assert_eq!(lost.load(SeqCst), 0);
        assert!(passed > refused, "{passed} passed, {refused} refused");
        assert_eq!(guard.flow().waiting_bytes(), 0, "all that was counted was taken");
        assert_eq!(guard.violations(), 0);
    });
}

#[test]
fn what_a_server_does_wrong_costs_one_connection_and_no_memory() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = guard(listener.local_addr().unwrap().port()).await;
        let (client, lost) = client(&guard).await;
        let _heard = client.subscribe("a").await.unwrap();
        for (number, said) in [
            &b"MSG a 1 18446744073709551615\r\n"[..],
            b"HMSG a 1 18446744073709551615 18446744073709551615\r\n",
            b"-ERR\r\n",
            b"MSG a 1 4294967295\r\n",
            b"INFO {\r\n",
            b"\x16\x03\x03\0\0",
            b"MSG a 1 2\r\nabc\r\n",
        ]
        .into_iter()
        .enumerate()
        {
            let mut server = timeout(PATIENCE, greet(&listener)).await.expect("it comes again");
            server.write_all(said).await.unwrap();
            let mut rest = Vec::new();
            // Closed with a reset where it had not read all.
            let _ = timeout(PATIENCE, server.read_to_end(&mut rest)).await.expect("it is closed");
            assert_eq!(guard.violations(), number + 1, "{}", said.escape_ascii());
        }
        // An endless line, and an endless first line.
        for (greeted, begin) in [(true, "MSG "), (false, "INFO "), (false, "INFO {\"a\":\"")] {
            let mut server = match greeted {
                true => timeout(PATIENCE, greet(&listener)).await.expect("it comes again"),
                false => timeout(PATIENCE, listener.accept()).await.expect("it comes again").unwrap().0,
            };
            let mut sent = begin.len();
            let _ = server.write_all(begin.as_bytes()).await;
            while server.write_all(&[b'x'; 4096]).await.is_ok() {
                sent += 4096;
                assert!(sent < 64 << 20, "it reads for ever");
            }
        }
        // Then one that is as it should be.
        let mut server = timeout(PATIENCE, greet(&listener)).await.expect("it comes again");
        until(&mut server, b"SUB a 1\r\n").await;
        assert!(lost.load(SeqCst) >= 7);
    });
}

#[test]
fn another_program_gets_no_word_from_the_guard() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = guard(listener.local_addr().unwrap().port()).await;
        let port = guard.url().rsplit(':').next().unwrap().to_owned();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; cat <&3");
        let stranger = tokio::task::spawn_blocking(move || {
            std::process::Command::new("bash").args(["-c", &script]).output().unwrap()
        });
        let heard = timeout(PATIENCE, stranger).await.expect("it is closed").unwrap();
        assert!(heard.stdout.is_empty());
        let dialled = timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(dialled.is_err(), "no server is dialled for it");
    });
}

#[test]
fn messages_wait_up_to_a_bound_and_the_connection_stays() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = guard(listener.local_addr().unwrap().port()).await;
        let (client, lost) = client(&guard).await;
        let mut server = greet(&listener).await;
        // A reader that takes nothing, and one that does.
        let lazy = Reader::new(client.subscribe("lazy").await.unwrap(), guard.flow());
        let mut quick = Reader::new(client.subscribe("quick").await.unwrap(), guard.flow());
        until(&mut server, b"SUB quick 2\r\n").await;
        let body = vec![b'x'; 20_000];
        let mut flood = b"MSG lazy 1 20000\r\n".to_vec();
        flood.extend_from_slice(&body);
        flood.extend_from_slice(b"\r\n");
        let (_reading, mut writing) = server.split();
        for _ in 0..2000 {
            timeout(PATIENCE, writing.write_all(&flood)).await.expect("it goes on reading").unwrap();
        }
        writing.write_all(b"MSG quick 2 2\r\nhi\r\n").await.unwrap();
        let heard = timeout(PATIENCE, quick.next()).await.expect("it comes through").unwrap();
        assert_eq!(heard.payload.as_ref(), b"hi");
        assert!(guard.flow().waiting_bytes() <= super::flow::MAX_WAITING_BYTES);
        assert_eq!(lost.load(SeqCst), 0);
        drop(lazy);
        assert_eq!(guard.flow().waiting_bytes(), 0);
    });
}
