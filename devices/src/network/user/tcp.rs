//! TCP: each connection of the guest joined to one of the host.
//!
//! The guest's SYN is kept back until the host is connected; then a listening socket of the stack gets it, or, when the
//! host was refused, no socket, which makes the stack answer with RST. Either is done in one step, so that at no time a
//! socket listens that another SYN could reach.

use super::frame::Flow;
use super::sockets::{Progress, Stream};
use super::{Host, QUEUE_MAX, Stack};
use crate::ports::Nanoseconds;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};
use std::io::ErrorKind;

/// Connections at a time.
const FLOWS_MAX: usize = 256;
/// Bytes of each of a connection's two buffers.
const BUFFER: usize = 128 << 10;
/// How long the host may take to connect.
const CONNECT: Nanoseconds = 120_000_000_000;

/// A connection that the host is making.
struct Connecting {
    stream: Box<dyn Stream>,
    syn: Vec<u8>,
    since: Nanoseconds,
}

/// A connection made on both sides.
struct Open {
    handle: SocketHandle,
    stream: Box<dyn Stream>,
    /// The guest has said it will send no more, and the host was told.
    guest_done: bool,
    /// The host has said it will send no more, and the guest was told.
    host_done: bool,
}

/// The connections going on, by the guest's naming.
#[derive(Default)]
pub struct TcpFlows {
    connecting: BTreeMap<Flow, Connecting>,
    open: BTreeMap<Flow, Open>,
    /// SYNs to be answered with RST.
    refused: Vec<Vec<u8>>,
}

impl TcpFlows {
    /// Nothing is going on.
    pub fn is_empty(&self) -> bool {
        self.connecting.is_empty() && self.open.is_empty() && self.refused.is_empty()
    }

    /// Takes a segment of the guest.
    pub fn accept(&mut self, stack: &mut Stack, host: &mut Host, flow: Flow, opens: bool, frame: &[u8]) {
        if opens && self.ended(stack, flow) {
            self.connect(stack, host, flow, frame);
        } else if !self.connecting.contains_key(&flow) {
            // Of a connection, or of none, which the stack says to the guest.
            if !opens || self.open.contains_key(&flow) {
                stack.give(frame);
            }
        }
    }

    /// There is no such connection, or no longer: then what is left of it is removed.
    fn ended(&mut self, stack: &mut Stack, flow: Flow) -> bool {
        if self.connecting.contains_key(&flow) {
            return false;
        }
        let Some(open) = self.open.get(&flow) else { return true };
        let state = stack.sockets.get::<Socket>(open.handle).state();
        if !matches!(state, State::Closed | State::TimeWait) {
            return false;
        }
        stack.sockets.remove(open.handle);
        self.open.remove(&flow);
        true
    }

    fn connect(&mut self, stack: &mut Stack, host: &mut Host, flow: Flow, syn: &[u8]) {
        if self.connecting.len() + self.open.len() >= FLOWS_MAX {
            self.remove_ended(stack, true);
        }
        let room = self.connecting.len() + self.open.len() < FLOWS_MAX;
        let to = host.map.host(*flow.remote.ip(), flow.remote.port()).filter(|_| room);
        match to.and_then(|to| host.sockets.connect(to)) {
            Some(stream) => {
                self.connecting.insert(flow, Connecting { stream, syn: syn.to_vec(), since: stack.now });
            }
            None if self.refused.len() < QUEUE_MAX => self.refused.push(syn.to_vec()),
            None => {}
        }
    }

    /// Moves what can be moved; true if the stack has something to do.
    pub fn work(&mut self, stack: &mut Stack) -> bool {
        self.settle_connecting(stack);
        let mut moved = false;
        for open in self.open.values_mut() {
            moved |= open.transfer(stack.sockets.get_mut::<Socket>(open.handle));
        }
        self.remove_ended(stack, false);
        moved
    }

    /// Answers the SYNs whose connection has come about or failed.
    fn settle_connecting(&mut self, stack: &mut Stack) {
        // Both answers need the stack to take the SYN at once, so it must be able to send.
        let room = |stack: &Stack| stack.cable.to_stack.is_empty() && stack.cable.to_guest.len() < QUEUE_MAX / 2;
        while room(stack)
            && let Some(syn) = self.refused.pop()
        {
            stack.give(&syn);
            stack.run();
        }
        let now = stack.now;
        let flows: Vec<Flow> = self.connecting.keys().copied().collect();
        for flow in flows {
            if !room(stack) {
                return;
            }
            let progress = self.connecting.get(&flow).map_or(Progress::Waiting, |connecting| connecting.progress(now));
            if progress == Progress::Waiting {
                continue;
            }
            let Some(Connecting { stream, syn, since: _ }) = self.connecting.remove(&flow) else { continue };
            let handle = (progress == Progress::Connected).then(|| listen(stack, flow)).flatten();
            stack.give(&syn);
            stack.run();
            let Some(handle) = handle else { continue };
            let guest = IpEndpoint::from(flow.guest);
            if stack.sockets.get::<Socket>(handle).remote_endpoint() == Some(guest) {
                self.open.insert(flow, Open { handle, stream, guest_done: false, host_done: false });
            } else {
                stack.sockets.remove(handle);
            }
        }
    }

    /// Removes connections that are over; with `waiting` also those that wait for stray segments.
    fn remove_ended(&mut self, stack: &mut Stack, waiting: bool) {
        self.open.retain(|_, open| {
            let state = stack.sockets.get::<Socket>(open.handle).state();
            let over = state == State::Closed || waiting && state == State::TimeWait;
            if over {
                stack.sockets.remove(open.handle);
            }
            !over
        });
    }

    /// The host may have something to say to the guest.
    pub fn waiting_for_host(&self, stack: &Stack) -> bool {
        !self.connecting.is_empty()
            || self.open.values().any(|open| {
                let socket = stack.sockets.get::<Socket>(open.handle);
                !open.host_done || socket.recv_queue() > 0
            })
    }
}

impl Connecting {
    fn progress(&self, now: Nanoseconds) -> Progress {
        match self.stream.progress() {
            Progress::Waiting if now.saturating_sub(self.since) >= CONNECT => Progress::Refused,
            progress => progress,
        }
    }
}

/// A socket of the stack that takes the next SYN to the flow's other end.
fn listen(stack: &mut Stack, flow: Flow) -> Option<SocketHandle> {
    let mut socket = Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER]));
    socket.set_nagle_enabled(false);
    socket.listen(IpListenEndpoint::from(flow.remote)).ok()?;
    Some(stack.sockets.add(socket))
}

impl Open {
    /// Moves bytes both ways; true if the stack has something to do.
    fn transfer(&mut self, socket: &mut Socket<'_>) -> bool {
        if matches!(socket.state(), State::Listen | State::SynReceived | State::Closed) {
            return false;
        }
        let moved = self.move_to_host(socket);
        self.move_to_guest(socket) || moved
    }

    fn move_to_host(&mut self, socket: &mut Socket<'_>) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            let stream = &mut self.stream;
            let result = socket.recv(|bytes| match stream.write(bytes) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error.kind())),
            });
            match result {
                Ok(Ok(0) | Err(ErrorKind::WouldBlock)) | Err(_) => break,
                Ok(Ok(_)) => moved = true,
                Ok(Err(ErrorKind::Interrupted)) => {}
                Ok(Err(_)) => {
                    socket.abort();
                    return true;
                }
            }
        }
        if !self.guest_done && !socket.may_recv() && socket.recv_queue() == 0 {
            self.guest_done = true;
            self.stream.finish();
        }
        moved
    }

    fn move_to_guest(&mut self, socket: &mut Socket<'_>) -> bool {
        let mut moved = false;
        while !self.host_done && socket.can_send() {
            let stream = &mut self.stream;
            let result = socket.send(|room| match stream.read(room) {
                Ok(n) => (n, Ok(n)),
                Err(error) => (0, Err(error.kind())),
            });
            match result {
                Ok(Ok(0)) => {
                    self.host_done = true;
                    socket.close();
                    return true;
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(ErrorKind::WouldBlock)) | Err(_) => break,
                Ok(Err(ErrorKind::Interrupted)) => {}
                Ok(Err(_)) => {
                    self.host_done = true;
                    socket.abort();
                    return true;
                }
            }
        }
        moved
    }
}
