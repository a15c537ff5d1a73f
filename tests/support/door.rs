//! A port of the test's own in front of a server: shut, open, dark (nothing passes, nothing ends, as on a link that drops
//! its packets) or broken (every connection ends).

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use super::{http::free_address, nats::eventually};

/// Bytes passed on at a time.
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Dark,
    Broken,
    /// The test is over.
    Gone,
}

/// What the door and its threads share.
struct Hinges {
    way: Mutex<Way>,
    turned: Condvar,
    /// Both ends of every connection that passed, to be ended when the door breaks.
    through: Mutex<Vec<TcpStream>>,
    /// Bytes that passed, both ways.
    passed: AtomicU64,
}

impl Hinges {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, to: Way) {
        *self.way() = to;
        self.turned.notify_all();
        if matches!(to, Way::Broken | Way::Gone) {
            for stream in self.through().drain(..) {
                // Already ended is fine.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn through(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.through.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while it is dark, and says how the door stands then.
    fn light(&self) -> Way {
        let mut way = self.way();
        while *way == Way::Dark {
            way = self.turned.wait(way).unwrap_or_else(PoisonError::into_inner);
        }
        *way
    }
}

/// The door.
pub struct Door {
    port: u16,
    hinges: Arc<Hinges>,
}

impl Door {
    /// A port nobody answers at.
    pub fn shut() -> Self {
        let (way, turned, through) = (Mutex::new(Way::Open), Condvar::new(), Mutex::default());
        let hinges = Hinges { way, turned, through, passed: AtomicU64::new(0) };
        Self { port: free_address().port(), hinges: Arc::new(hinges) }
    }

    /// A door that leads to the port `to`, open.
    pub fn to(to: u16) -> Self {
        let door = Self::shut();
        door.open(to);
        door
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that passed so far, both ways.
    pub fn passed(&self) -> u64 {
        self.hinges.passed.load(Relaxed)
    }

    /// Nothing passes from now on and nothing ends: what is sent waits, as what TCP would send again and again.
    pub fn darken(&self) {
        self.hinges.turn(Way::Dark);
    }

    /// Ends every connection, and each new one at once.
    pub fn smash(&self) {
        self.hinges.turn(Way::Broken);
    }

    /// Lets everything pass again, beginning with what waited.
    pub fn mend(&self) {
        self.hinges.turn(Way::Open);
    }

    /// Passes on to the port `to` from now on.
    pub fn open(&self, to: u16) {
        let mut listener = None;
        // A passing connection of another test may come from this very port.
        eventually("the port is free", || {
            listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).ok();
            listener.is_some()
        });
        let listener = listener.expect("it was waited for");
        let hinges = self.hinges.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                match hinges.light() {
                    Way::Gone => return,
                    // The client is dropped, and sees its connection closed.
                    Way::Broken => continue,
                    Way::Open | Way::Dark => {}
                }
                // The same for a server that is gone.
                let (Ok(client), Ok(server)) = (client, TcpStream::connect((Ipv4Addr::LOCALHOST, to))) else {
                    continue;
                };
                // Small messages go at once, as between a client and a server that speak directly.
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { continue };
                if let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) {
                    let mut through = hinges.through();
                    // Those that ended themselves are forgotten.
                    through.retain(|stream| stream.peer_addr().is_ok());
                    through.extend([client, server]);
                }
                pass_on(&hinges, from_client, server);
                pass_on(&hinges, from_server, client);
            }
        });
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.hinges.turn(Way::Gone);
        // Wakes the listener, if it was ever opened.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn pass_on(hinges: &Arc<Hinges>, mut from: TcpStream, mut into: TcpStream) {
    let hinges = hinges.clone();
    thread::spawn(move || {
        let mut piece = [0; PIECE_BYTES];
        loop {
            let read = from.read(&mut piece);
            hinges.light();
            match read {
                Ok(count @ 1..) if into.write_all(&piece[..count]).is_ok() => {
                    hinges.passed.fetch_add(count as u64, Relaxed);
                }
                _ => break,
            }
        }
        // Either end may vanish at any time; the other then learns of it.
        let _ = into.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
