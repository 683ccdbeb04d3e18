//! A proxy between a client and a Redis server that breaks what networks break: it cuts a connection in the middle of
//! a reply (the command was applied, its reply is lost), is slow, goes silent, refuses, or leads elsewhere.
//!
//! It reads replies only as far as needed to know where one ends (`ReplyCounter`).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::redis_server::url;

/// How often a thread looks whether it is to go on.
const LOOK: Duration = Duration::from_millis(2);

/// What becomes of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// They are forwarded.
    #[default]
    Flows,
    /// They stay as they are and nothing comes through: a network that lost its way. What was sent arrives afterwards.
    Silent,
    /// They are closed, and so are new ones, at once.
    Refused,
}

/// Where the next cut is.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Whole replies that still pass.
    replies: u64,
    /// Bytes of the next one that still pass.
    bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    target_port: u16,
    traffic: Traffic,
    delay: Duration,
    cut: Option<Cut>,
    cuts: u64,
    /// Both ends of every connection.
    connections: Vec<[TcpStream; 2]>,
    accepted: u64,
    closed: bool,
}

impl State {
    fn cut_all(&mut self) {
        for ends in self.connections.drain(..) {
            for end in ends {
                // It fails if the other side was faster.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

/// The proxy, until it is dropped.
pub struct TcpProxy {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    state: Arc<Mutex<State>>,
    acceptor: Option<JoinHandle<()>>,
}

impl TcpProxy {
    /// Leads to the server at this port of 127.0.0.1.
    ///
    /// # Panics
    /// If this machine has no port to give.
    #[must_use]
    pub fn start(target_port: u16) -> TcpProxy {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("this machine has a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let state = Arc::new(Mutex::new(State {
            target_port,
            ..State::default()
        }));
        let accepting = Arc::clone(&state);
        let acceptor = std::thread::spawn(move || accept(&listener, &accepting));
        TcpProxy {
            port,
            state,
            acceptor: Some(acceptor),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The address for a store.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port, None)
    }

    /// Leads to another server from now on; connections to the old one are cut.
    pub fn lead_to(&self, target_port: u16) {
        let mut state = self.state();
        state.target_port = target_port;
        state.cut_all();
    }

    /// Cuts every connection; new ones are welcome.
    pub fn cut_all(&self) {
        self.state().cut_all();
    }

    /// Lets `replies` more replies pass (over all connections), then `bytes` bytes of the next one (all but its end, if
    /// it is shorter), and cuts that connection. Once.
    pub fn cut_within_reply(&self, replies: u64, bytes: usize) {
        self.state().cut = Some(Cut { replies, bytes });
    }

    /// Whether the cut that was asked for is still to come.
    #[must_use]
    pub fn is_cut_pending(&self) -> bool {
        self.state().cut.is_some()
    }

    /// How many connections were cut within a reply.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.state().cuts
    }

    /// How many connections were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.state().accepted
    }

    /// Holds every piece of a reply back for so long.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Says what becomes of connections from now on.
    pub fn set_traffic(&self, traffic: Traffic) {
        let mut state = self.state();
        state.traffic = traffic;
        if traffic == Traffic::Refused {
            state.cut_all();
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        {
            let mut state = self.state();
            state.closed = true;
            state.cut_all();
        }
        // Wakes the acceptor.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let target_port = {
            let mut state = lock(state);
            if state.closed {
                return;
            }
            if state.traffic == Traffic::Refused {
                continue;
            }
            state.accepted += 1;
            state.target_port
        };
        // A server that is not there: the client sees its connection close.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target_port)) else {
            continue;
        };
        // Small pieces go at once, as the client and the server send them.
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let ends = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some(listed), Some(up), Some(down)) = (ends(), ends(), ends()) else {
            continue;
        };
        lock(state).connections.push([listed.0, listed.1]);
        let (up_state, down_state) = (Arc::clone(state), Arc::clone(state));
        std::thread::spawn(move || pump(up.0, up.1, &up_state, None));
        std::thread::spawn(move || {
            pump(down.1, down.0, &down_state, Some(ReplyCounter::default()));
        });
    }
}

/// Forwards until either side ends; with a counter these are replies.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    state: &Mutex<State>,
    mut counter: Option<ReplyCounter>,
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let piece = &bytes[..count];
        let delay = loop {
            let state = lock(state);
            if state.closed {
                return;
            }
            if state.traffic != Traffic::Silent {
                break state.delay;
            }
            drop(state);
            std::thread::sleep(LOOK);
        };
        let mut passing = piece.len();
        if let Some(counter) = &mut counter {
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
            passing = counter.pass(piece, &mut lock(state));
        }
        if to.write_all(&piece[..passing]).is_err() || passing < piece.len() {
            break;
        }
    }
    for end in [from, to] {
        // It fails if the other side was faster.
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// Finds where replies end in a stream of them (RESP2 and RESP3).
#[derive(Debug, Default)]
struct ReplyCounter {
    /// Values that are still to come of each array that is open, outermost first.
    open: Vec<u64>,
    /// The line that is being read: its type and its number, or text.
    line: Vec<u8>,
    /// Bytes of a text, with its end of line, that are still to come.
    text_bytes: u64,
    /// Bytes of this reply that passed.
    passed: usize,
    /// It is a message that nobody asked for.
    is_push: bool,
}

impl ReplyCounter {
    /// How many bytes of this piece pass; fewer than all of them if the connection is to be cut there.
    fn pass(&mut self, piece: &[u8], state: &mut State) -> usize {
        for (place, &byte) in piece.iter().enumerate() {
            let is_end = self.take(byte);
            let asked = !self.is_push;
            if let (Some(cut), true) = (state.cut, asked) {
                if cut.replies == 0 && (self.passed >= cut.bytes || is_end) {
                    state.cut = None;
                    state.cuts += 1;
                    return place;
                }
                if is_end {
                    state.cut = Some(Cut {
                        replies: cut.replies - 1,
                        ..cut
                    });
                }
            }
            self.passed += 1;
            if is_end {
                *self = ReplyCounter::default();
            }
        }
        piece.len()
    }

    /// Whether a whole reply ends with this byte.
    fn take(&mut self, byte: u8) -> bool {
        if self.text_bytes > 0 {
            self.text_bytes -= 1;
            return self.text_bytes == 0 && self.value_ended();
        }
        if self.line.is_empty() && self.open.is_empty() && byte == b'>' {
            self.is_push = true;
        }
        self.line.push(byte);
        if byte != b'\n' {
            return false;
        }
        let line = std::mem::take(&mut self.line);
        let number = std::str::from_utf8(&line[1..])
            .ok()
            .and_then(|text| text.trim_end().parse::<u64>().ok());
        match (line[0], number) {
            (b'$' | b'=' | b'!', Some(bytes)) => {
                self.text_bytes = bytes + 2;
                false
            }
            (b'*' | b'~' | b'>', Some(values @ 1..)) => {
                self.open.push(values);
                false
            }
            (b'%', Some(pairs @ 1..)) => {
                self.open.push(2 * pairs);
                false
            }
            // A number, a simple text, an error, nothing, or an empty array.
            _ => self.value_ended(),
        }
    }

    fn value_ended(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies_in(stream: &[u8]) -> usize {
        let mut counter = ReplyCounter::default();
        let mut ends = 0;
        for &byte in stream {
            if counter.take(byte) {
                ends += 1;
                counter = ReplyCounter::default();
            }
        }
        assert!(counter.open.is_empty() && counter.line.is_empty());
        ends
    }

    #[test]
    fn replies_end_where_they_end() {
        assert_eq!(replies_in(b"+OK\r\n"), 1);
        assert_eq!(replies_in(b":12\r\n-ERR no\r\n"), 2);
        assert_eq!(replies_in(b"$-1\r\n$0\r\n\r\n$3\r\na\r\n\r\n"), 3);
        assert_eq!(replies_in(b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n*0\r\n"), 2);
        assert_eq!(replies_in(b"%1\r\n+a\r\n*-1\r\n_\r\n#t\r\n,1.5\r\n"), 4);
    }

    #[test]
    fn a_cut_counts_replies_and_bytes_but_no_messages() {
        let mut state = State {
            cut: Some(Cut {
                replies: 1,
                bytes: 2,
            }),
            ..State::default()
        };
        let mut counter = ReplyCounter::default();
        assert_eq!(counter.pass(b"+OK\r\n", &mut state), 5);
        assert_eq!(counter.pass(b">1\r\n:1\r\n", &mut state), 8);
        assert_eq!(counter.pass(b":123\r\n", &mut state), 2);
        assert_eq!(state.cuts, 1);
        assert!(state.cut.is_none());
    }
}
