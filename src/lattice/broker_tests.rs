//! Connections that links ask for: shared, ended with their last user, used again where they could not be ended, bounded;
//! and what a stream says of what it is given.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream::stream;

use super::broker::NatsBroker;
use crate::{
    error::Kind,
    host::{Broker, BrokerServer, broker::Parcel},
    nats::testing::{NatsServer, connect, eventually, quick, run, steady},
    wire::interface::BrokerMessage,
};

fn at(port: u16) -> BrokerServer {
    BrokerServer { servers: format!("127.0.0.1:{port}"), ..BrokerServer::default() }
}

fn parcel(number: usize, stream: Option<&str>) -> Parcel {
    Parcel {
        id: format!("message-{number}"),
        subject: "readings.a".into(),
        body: number.to_string().into(),
        stream: stream.map(str::to_owned),
    }
}

#[test]
fn equal_wishes_share_one_connection_and_it_ends_with_the_last() {
    run(async {
        let server = NatsServer::start("");
        let broker = NatsBroker::new(steady(), "NTEST").unwrap();
        assert!(broker.own().is_none());
        let (one, two) = (broker.open(at(server.port)).await.unwrap(), broker.open(at(server.port)).await.unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        eventually("connected", || one.is_connected()).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = heard.clone();
        let sink = Box::new(move |message: BrokerMessage| sink.lock().unwrap().push(message.body));
        let listening = one.subscribe("a.*".into(), None, sink).await.unwrap();
        let say = |body: &str| two.publish(BrokerMessage { subject: "a.b".into(), reply_to: None, body: body.into() });
        // The same connection carries both, in order.
        say("hello").await.unwrap();
        eventually("it is heard", || heard.lock().unwrap().len() == 1).await;
        drop(listening);
        let nobody = two.request("a.b".into(), Vec::new(), Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(nobody.kind(), Kind::Unavailable, "{nobody}");
        assert_eq!(heard.lock().unwrap().len(), 1);
        drop((one, two));
        // Another one now.
        let three = broker.open(at(server.port)).await.unwrap();
        eventually("connected", || three.is_connected()).await;
    });
}

#[test]
fn a_connection_that_is_away_rests_and_is_used_again_and_there_are_only_so_many() {
    run(async {
        let mut server = NatsServer::stopped("");
        let broker = NatsBroker::new(quick(), "NTEST").unwrap();
        drop(broker.open(at(server.port)).await.unwrap());
        server.resume();
        // It rests, though there is a server now; whoever asks wakes it.
        let again = broker.open(at(server.port)).await.unwrap();
        eventually("connected", || again.is_connected()).await;
        drop(again);

        // Attempts end with the last user, and go on with the next.
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        door.set_nonblocking(true).unwrap();
        let at_door = at(door.local_addr().unwrap().port());
        let visited = || door.accept().is_ok();
        let bus = broker.open(at_door.clone()).await.unwrap();
        eventually("it is tried", visited).await;
        eventually("it is tried again", visited).await;
        drop(bus);
        // One attempt may be on its way.
        smol::Timer::after(Duration::from_millis(700)).await;
        while visited() {}
        smol::Timer::after(Duration::from_millis(700)).await;
        assert!(!visited(), "nobody uses it, and it is tried");
        let _bus = broker.open(at_door).await.unwrap();
        eventually("it is tried as before", visited).await;

        let mut held = Vec::new();
        let mut port = 1;
        let error = loop {
            match broker.open(at(port)).await {
                // Every second one is forgotten at once, and counts all the same: it cannot be ended.
                Ok(bus) if port % 2 == 0 => held.push(bus),
                Ok(bus) => drop(bus),
                Err(error) => break error,
            }
            port += 1;
        };
        assert_eq!((port, error.kind()), (16, Kind::Limit), "{error}");
        // One that is known already is no more.
        broker.open(at(1)).await.unwrap();
        broker.open(at(2)).await.unwrap();
    });
}

#[test]
fn bad_wishes_are_refused_without_their_secrets() {
    run(async {
        let broker = NatsBroker::new(steady(), "NTEST").unwrap();
        for server in [
            BrokerServer { servers: "http://a".into(), ..BrokerServer::default() },
            BrokerServer { jwt: "swordfish".into(), ..at(1) },
            BrokerServer { seed: "swordfish".into(), ..at(1) },
            BrokerServer { servers: "nats://me:swordfish@a:x".into(), ..BrokerServer::default() },
        ] {
            let error = broker.open(server).await.err().unwrap();
            assert!(error.kind() == Kind::Config && !error.text().contains("swordfish"), "{error}");
        }
    });
}

#[test]
fn a_stream_takes_what_it_has_not_seen_and_says_why_it_does_not_take_the_rest() {
    run(async {
        let server = NatsServer::start("max_payload: 2000");
        let broker = NatsBroker::new(steady(), "NTEST").unwrap();
        let bus = broker.open(at(server.port)).await.unwrap();
        eventually("connected", || bus.is_connected()).await;
        let nobody = bus.forward(vec![parcel(0, None)]).await;
        let failure = nobody.failure.unwrap();
        assert_eq!((nobody.stored, failure.kind()), (0, Kind::Unavailable), "{failure}");
        assert!(failure.text().contains("no JetStream stream takes readings.a"), "{failure}");

        let other = connect(&server.endpoint(), &steady()).await;
        let context = other.jetstream(None, Duration::from_secs(20));
        let count = other
            .run(async move {
                let config = stream::Config {
                    name: "READINGS".into(),
                    subjects: vec!["readings.>".into()],
                    max_message_size: 1000,
                    ..stream::Config::default()
                };
                let made = context.create_stream(config).await.unwrap();
                move || {
                    let mut made = made.clone();
                    async move { made.info().await.unwrap().state.messages }
                }
            })
            .await
            .unwrap();
        let messages = || other.run(count());
        let all: Vec<Parcel> = (0..40).map(|number| parcel(number, Some("READINGS"))).collect();
        let forwarded = bus.forward(all.clone()).await;
        assert!(forwarded.stored == 40 && forwarded.failure.is_none(), "{forwarded:?}");
        // The same again: acknowledged, and there once.
        assert_eq!(bus.forward(all).await.stored, 40);
        assert_eq!(messages().await.unwrap(), 40);

        // The wrong stream: nothing is stored, and another time may be right.
        let wrong = bus.forward(vec![parcel(50, Some("OTHERS"))]).await;
        let failure = wrong.failure.unwrap();
        assert_eq!((wrong.stored, failure.kind()), (0, Kind::Unavailable), "{failure}");
        // Too long for the stream, and for the server: never.
        for length in [1500, 3000] {
            let long = Parcel { body: vec![0; length], ..parcel(60, None) };
            let refused = bus.forward(vec![parcel(51, None), long, parcel(52, None)]).await;
            let failure = refused.failure.unwrap();
            assert_eq!((refused.stored, failure.kind()), (1, Kind::Limit), "{length}: {failure}");
        }
    });
}
