//! The host's sockets, behind traits: what the guest says reaches the host here and nowhere else, and tests and fuzzing
//! put something in their place that opens nothing.

use alloc::boxed::Box;
use socket2::{Domain, SockAddr, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};

/// Opens sockets. Nothing here or in what it gives ever blocks.
pub trait Sockets: Send {
    /// Begins a TCP connection; `None` when it is refused at once.
    fn connect(&mut self, to: SocketAddrV4) -> Option<Box<dyn Stream>>;
    /// A UDP socket on a port of the host's choice; `None` when the host has none.
    fn datagrams(&mut self) -> Option<Box<dyn Datagrams>>;
}

/// How far a TCP connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The other end has not answered.
    Waiting,
    /// It has.
    Connected,
    /// It, or the way there, has refused.
    Refused,
}

/// A TCP connection. Reading and writing give [`ErrorKind::WouldBlock`] where they would have to wait.
pub trait Stream: Send + Read + Write {
    /// How far connecting has come.
    fn progress(&self) -> Progress;
    /// Says to the other end that no more will come.
    fn finish(&mut self);
}

/// A UDP socket.
pub trait Datagrams: Send {
    /// Sends one datagram.
    ///
    /// # Errors
    /// What the host says: it is lost then.
    fn send_to(&mut self, payload: &[u8], to: SocketAddrV4) -> io::Result<()>;
    /// Takes one that has come: its length, of which no more than `buffer` holds is kept, and who sent it.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when there is none.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
}

/// The operating system's.
pub struct HostSockets;

impl Sockets for HostSockets {
    fn connect(&mut self, to: SocketAddrV4) -> Option<Box<dyn Stream>> {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.set_nonblocking(true).ok()?;
        if let Err(error) = socket.connect(&SockAddr::from(to))
            && matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::HostUnreachable
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::PermissionDenied
                    | ErrorKind::InvalidInput
            )
        {
            return None;
        }
        // Else it is made, or in progress, which has different names on different hosts.
        let stream = TcpStream::from(socket);
        // A guest's segments are not gathered: its own stack has done that.
        let _ = stream.set_nodelay(true);
        Some(Box::new(stream))
    }

    fn datagrams(&mut self) -> Option<Box<dyn Datagrams>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Box::new(socket))
    }
}

impl Stream for TcpStream {
    fn progress(&self) -> Progress {
        match self.take_error() {
            Ok(None) if self.peer_addr().is_ok() => Progress::Connected,
            Ok(None) => Progress::Waiting,
            Ok(Some(_)) | Err(_) => Progress::Refused,
        }
    }

    fn finish(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
    }
}

impl Datagrams for UdpSocket {
    fn send_to(&mut self, payload: &[u8], to: SocketAddrV4) -> io::Result<()> {
        UdpSocket::send_to(self, payload, to).map(|_| ())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(buffer)
    }
}
